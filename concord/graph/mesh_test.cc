#include "concord/graph/mesh.h"

#include <gtest/gtest.h>

namespace concord {
namespace {

TEST(Mesh, TheLastAxisRunsFastest) {
  const Mesh mesh{{{"data", 4}, {"tensor", 2}}};
  EXPECT_EQ(mesh.ranks(), 8);
  EXPECT_EQ(mesh.coordinate(5, "data"), 2);
  EXPECT_EQ(mesh.coordinate(5, "tensor"), 1);
  EXPECT_EQ(mesh.coordinate(5, "pipe"), 0);
  EXPECT_EQ(mesh.extent("pipe"), 1);
  EXPECT_EQ(to_string(mesh), "{data: 4, tensor: 2}");
  EXPECT_EQ(Mesh().ranks(), 1);
}

}  // namespace
}  // namespace concord

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

TEST(Mesh, RanksAlongAnAxisDifferInItAlone) {
  const Mesh mesh{{{"data", 2}, {"pipe", 3}, {"tensor", 2}}};
  EXPECT_EQ(mesh.ranks_along(7, "data"), (std::vector<int>{1, 7}));
  EXPECT_EQ(mesh.ranks_along(7, "pipe"), (std::vector<int>{7, 9, 11}));
  EXPECT_EQ(mesh.ranks_along(7, "tensor"), (std::vector<int>{6, 7}));
  EXPECT_EQ(mesh.ranks_along(7, "expert"), (std::vector<int>{7}));
}

}  // namespace
}  // namespace concord

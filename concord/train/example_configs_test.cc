// The configurations that the repository offers are valid.
#include <gtest/gtest.h>

#include <filesystem>

#include "concord/train/config.h"

namespace concord {
namespace {

TEST(ExampleConfigs, AllLoad) {
  int count = 0;
  for (const char* folder : {"examples", "bench/configs"}) {
    for (const auto& entry :
         std::filesystem::directory_iterator(std::filesystem::path(CONCORD_SOURCE_DIR) / folder)) {
      if (entry.path().extension() != ".toml") continue;
      EXPECT_NO_THROW(load_config(entry.path())) << entry.path();
      ++count;
    }
  }
  EXPECT_GE(count, 11);
}

}  // namespace
}  // namespace concord

#include "concord/train/kernel_cache.h"

#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/base/file.h"

namespace concord::train {
namespace {

using testing::HasSubstr;

class KernelCache : public testing::Test {
 protected:
  // Of each test: they may run at the same time.
  std::filesystem::path path_ =
      std::filesystem::path(testing::TempDir()) /
      fmt::format("kernel_cache_{}",
                  testing::UnitTest::GetInstance()->current_test_info()->name()) /
      "kernels.json";
  void TearDown() override { std::filesystem::remove_all(path_.parent_path()); }
};

TEST_F(KernelCache, KeepsWhatSeveralRunsChose) {
  EXPECT_TRUE(load_kernel_choices(path_).empty());
  save_kernel_choices(path_, {{"a", "direct"}});
  save_kernel_choices(path_, {{"a", "winograd"}, {"b", "direct"}});
  EXPECT_EQ(load_kernel_choices(path_), (KernelChoices{{"a", "direct"}, {"b", "direct"}}));
}

TEST_F(KernelCache, ForgetsWhatWasChosenFromFewer) {
  save_kernel_choices(path_, {{"a", "direct"}});
  write_file_atomically(path_, R"({"a": "direct"})");
  EXPECT_TRUE(load_kernel_choices(path_).empty());
  save_kernel_choices(path_, {{"a", "winograd"}});
  EXPECT_EQ(load_kernel_choices(path_), (KernelChoices{{"a", "winograd"}}));
}

TEST_F(KernelCache, SaysThatADamagedFileIsOfNoUse) {
  save_kernel_choices(path_, {{"a", "direct"}});
  write_file_atomically(path_, "{");
  testing::internal::CaptureStderr();
  EXPECT_TRUE(load_kernel_choices(path_).empty());
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("measured anew"));
}

}  // namespace
}  // namespace concord::train

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/data/test_data.h"

namespace concord::data {
namespace {

constexpr int kMutants = 3000;

void expect_harmless_mutants(const ParserTarget& target) {
  const std::vector<std::string> said = refusals(target, kMutants);
  EXPECT_GT(said.size(), target.seeds.size() * kMutants / 10) << target.name;
  EXPECT_THAT(said, testing::Each(testing::StartsWith("input"))) << target.name;
}

TEST(MutatedInput, IdxParsesOrIsRefused) { expect_harmless_mutants(idx_target()); }
TEST(MutatedInput, CifarParsesOrIsRefused) { expect_harmless_mutants(cifar_target()); }
TEST(MutatedInput, TaskParsesOrIsRefused) { expect_harmless_mutants(task_target()); }
TEST(MutatedInput, CsvParsesOrIsRefused) { expect_harmless_mutants(csv_target()); }
TEST(MutatedInput, NpyParsesOrIsRefused) { expect_harmless_mutants(npy_target()); }
TEST(MutatedInput, TokenizerParsesOrIsRefused) { expect_harmless_mutants(tokenizer_target()); }
TEST(MutatedInput, ImageDecodesOrIsRefused) { expect_harmless_mutants(image_target()); }

}  // namespace
}  // namespace concord::data

#include "concord/data/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::int64_t> indices(Sampler sampler, std::int64_t step) {
  const auto view = sampler.indices(step);
  return {view.begin(), view.end()};
}

TEST(Sampler, WithoutShuffleKeepsTheOrderAndShortensTheLastBatch) {
  const Sampler sampler(5, 2, 0, false);
  EXPECT_EQ(sampler.steps_per_epoch(), 3);
  EXPECT_THAT(indices(sampler, 0), ElementsAre(0, 1));
  EXPECT_THAT(indices(sampler, 2), ElementsAre(4));
  EXPECT_THAT(indices(sampler, 3), ElementsAre(0, 1));
  EXPECT_EQ(sampler.epoch(2), 0);
  EXPECT_EQ(sampler.epoch(3), 1);
  EXPECT_EQ(sampler.count(5), 1);
}

TEST(Sampler, EveryEpochUsesEverySampleOnceWhateverTheBatch) {
  for (const std::int64_t batch : {1, 7, 100, 101, 1000}) {
    Sampler sampler(101, batch, 42, true);
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
      std::vector<std::int64_t> seen;
      for (std::int64_t k = 0; k < sampler.steps_per_epoch(); ++k) {
        const std::int64_t step = epoch * sampler.steps_per_epoch() + k;
        const auto batch_indices = sampler.indices(step);
        EXPECT_EQ(static_cast<std::int64_t>(batch_indices.size()), sampler.count(step));
        seen.insert(seen.end(), batch_indices.begin(), batch_indices.end());
      }
      std::vector<std::int64_t> all(101);
      std::iota(all.begin(), all.end(), 0);
      EXPECT_NE(seen, all);
      EXPECT_THAT(seen, testing::UnorderedElementsAreArray(all));
    }
  }
}

TEST(Sampler, OrderDependsOnSeedAndEpochAndNotOnWhatWasAskedBefore) {
  Sampler sampler(100, 10, 1, true);
  const std::vector<std::int64_t> first = indices(sampler, 0);
  for (const std::int64_t step : {57, 3, 12, 0}) {
    const auto view = sampler.indices(step);
    EXPECT_EQ(std::vector(view.begin(), view.end()), indices(Sampler(100, 10, 1, true), step));
  }
  EXPECT_NE(indices(sampler, 10), first);
  EXPECT_NE(indices(Sampler(100, 10, 2, true), 0), first);
}

TEST(Sampler, LastPlaceIsUniform) {
  std::vector<int> counts(5, 0);
  for (std::uint64_t seed = 0; seed < 5000; ++seed) {
    ++counts[static_cast<std::size_t>(indices(Sampler(5, 1, seed, true), 4)[0])];
  }
  EXPECT_THAT(counts, testing::Each(testing::AllOf(testing::Gt(860), testing::Lt(1140))));
}

TEST(Sampler, RefusesSizesThatAreNotPositive) {
  EXPECT_THAT(error_of([] { Sampler(0, 1, 0, true); }), HasSubstr("0 samples"));
  EXPECT_THAT(error_of([] { Sampler(1, 0, 0, true); }), HasSubstr("batch size 0"));
}

}  // namespace
}  // namespace concord::data

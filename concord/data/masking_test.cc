#include "concord/data/masking.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "concord/data/loader.h"
#include "concord/data/token_windows.h"

namespace concord::data {
namespace {

constexpr TokenId kMask = 100;

struct Masked {
  std::vector<TokenId> tokens;
  std::vector<std::int32_t> labels;
  bool operator==(const Masked&) const = default;
};

// A sample of `length` tokens, all 7.
Masked masked(std::int64_t length, std::int64_t epoch, std::int64_t index, std::uint64_t seed = 1) {
  const auto count = static_cast<std::size_t>(length);
  Masked sample{std::vector<TokenId>(count, 7), std::vector<std::int32_t>(count, 8)};
  Masking(100, kMask, seed).apply(epoch, index, sample.tokens, sample.labels);
  return sample;
}

TEST(Masking, ChoosesTheSameNumberOfEverySample) {
  EXPECT_EQ(Masking::chosen(1), 1);
  EXPECT_EQ(Masking::chosen(10), 2);
  EXPECT_EQ(Masking::chosen(128), 19);
  for (const std::int64_t length : {1, 10, 128}) {
    for (std::int64_t index = 0; index < 20; ++index) {
      const Masked sample = masked(length, 0, index);
      EXPECT_EQ(std::ranges::count(sample.labels, 7), Masking::chosen(length));
      EXPECT_EQ(std::ranges::count(sample.labels, -1), length - Masking::chosen(length));
      for (std::size_t i = 0; i < sample.tokens.size(); ++i) {
        EXPECT_TRUE(sample.labels[i] == 7 || sample.tokens[i] == 7) << i;
      }
    }
  }
}

// 1500 of 10000 tokens are chosen; bounds are five standard deviations away.
TEST(Masking, HidesMostOfTheChosenAndKeepsOrReplacesTheRest) {
  const Masked sample = masked(10000, 0, 0);
  int hidden = 0, kept = 0, first_half = 0;
  for (std::size_t i = 0; i < sample.tokens.size(); ++i) {
    if (sample.labels[i] == -1) continue;
    first_half += i < 5000;
    hidden += sample.tokens[i] == kMask;
    kept += sample.tokens[i] == 7;
    EXPECT_LE(sample.tokens[i], kMask);
  }
  EXPECT_NEAR(first_half, 750, 97);
  EXPECT_NEAR(hidden, 1200, 78);
  EXPECT_NEAR(kept, 151.5, 58);
}

TEST(Masking, DiffersBySeedEpochAndSampleAlone) {
  const Masked sample = masked(128, 2, 5);
  EXPECT_EQ(masked(128, 2, 5), sample);
  EXPECT_NE(masked(128, 3, 5), sample);
  EXPECT_NE(masked(128, 2, 6), sample);
  EXPECT_NE(masked(128, 2, 5, 9), sample);
}

TEST(Masking, TheLoaderMasksAlikeWithAnyNumberOfThreads) {
  std::vector<TokenId> row;
  for (TokenId i = 0; i < 40001; ++i) row.push_back(i % 100);
  TokenStream stream(100);
  stream.append(row);
  const auto windows = token_windows(std::move(stream), 100, 100, "text");
  const auto batches = [&](int threads) {
    const Sampler sampler(windows->size(), 64, 1, true);
    Loader loader(*windows, sampler, Augmentation::none({}, windows->sample_shape()),
                  {.threads = threads, .end_step = 10, .masking = Masking(100, kMask, 3)});
    std::vector<Masked> all;
    while (loader.has_next()) {
      const Batch& batch = loader.next();
      all.push_back(
          {{batch.tokens.begin(), batch.tokens.end()}, {batch.labels.begin(), batch.labels.end()}});
      for (std::size_t i = 0; i < batch.tokens.size(); ++i) {
        if (batch.labels[i] == -1) continue;
        const auto place = static_cast<std::int32_t>(i % 100);
        EXPECT_EQ(batch.labels[i], place);  // every window is 0, 1, ..., 99
      }
    }
    return all;
  };
  const std::vector<Masked> alone = batches(0);
  EXPECT_EQ(batches(3), alone);
  EXPECT_NE(alone[0], alone[7]);  // of the second epoch
}

}  // namespace
}  // namespace concord::data

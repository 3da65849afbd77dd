#include "concord/data/augment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<float> applied(const Augmentation& augmentation, std::int64_t epoch, std::int64_t index,
                           const std::vector<float>& raw) {
  std::vector<float> result(raw.size(), -99.0f);
  augmentation.apply(epoch, index, raw, result);
  return result;
}

// 1, 2, 3, ...: no pixel is like another, and none like the padding.
std::vector<float> numbered(std::size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

TEST(Augmentation, NoneNormalizesEachChannel) {
  const Augmentation images = Augmentation::none({{1, 2}, {2, 4}}, {2, 1, 2});
  EXPECT_THAT(applied(images, 0, 0, {1, 3, 2, 10}), ElementsAre(0, 1, 0, 2));
  const Augmentation vectors = Augmentation::none({{1, 2}, {2, 4}}, {2});
  EXPECT_THAT(applied(vectors, 0, 0, {3, 10}), ElementsAre(1, 2));
}

TEST(Augmentation, IsAPureFunctionOfSeedEpochAndSample) {
  const AugmentOptions options{.crop_padding = 4, .horizontal_flip = true, .cutout = 3};
  const std::vector<float> raw = numbered(3 * 8 * 8);
  const Augmentation first(options, {}, {3, 8, 8}, 1);
  const Augmentation again(options, {}, {3, 8, 8}, 1);
  const Augmentation other(options, {}, {3, 8, 8}, 2);
  const auto result = applied(first, 5, 7, raw);
  EXPECT_EQ(applied(again, 5, 7, raw), result);
  EXPECT_NE(applied(other, 5, 7, raw), result);
  EXPECT_NE(applied(first, 6, 7, raw), result);
  EXPECT_NE(applied(first, 5, 8, raw), result);
}

TEST(Augmentation, CropShiftsTheImageAndPadsWithZeros) {
  const int padding = 2;
  const Augmentation augmentation({.crop_padding = padding}, {{1.0f}, {2.0f}}, {1, 4, 5}, 3);
  const std::vector<float> raw = numbered(20);
  std::set<std::pair<int, int>> shifts;
  for (std::int64_t index = 0; index < 300; ++index) {
    const std::vector<float> result = applied(augmentation, 0, index, raw);
    // The shift that explains the result, found by trying all of them.
    int explanations = 0;
    for (int down = -padding; down <= padding; ++down) {
      for (int right = -padding; right <= padding; ++right) {
        std::vector<float> expected;
        for (std::int64_t y = down; y < down + 4; ++y) {
          for (std::int64_t x = right; x < right + 5; ++x) {
            const bool inside = y >= 0 && y < 4 && x >= 0 && x < 5;
            expected.push_back(((inside ? raw[static_cast<std::size_t>(y * 5 + x)] : 0) - 1) / 2);
          }
        }
        if (expected != result) continue;
        ++explanations;
        shifts.insert({down, right});
      }
    }
    ASSERT_EQ(explanations, 1);
  }
  EXPECT_EQ(shifts.size(), 25u);
}

TEST(Augmentation, FlipMirrorsAboutHalfOfTheSamples) {
  const Augmentation augmentation({.horizontal_flip = true}, {}, {1, 2, 2}, 3);
  int flipped = 0;
  for (std::int64_t index = 0; index < 1000; ++index) {
    const std::vector<float> result = applied(augmentation, 0, index, {1, 2, 3, 4});
    if (result == std::vector<float>{2, 1, 4, 3}) {
      ++flipped;
    } else {
      ASSERT_THAT(result, ElementsAre(1, 2, 3, 4));
    }
  }
  EXPECT_NEAR(flipped, 500, 80);  // five standard deviations
}

TEST(Augmentation, CutoutZeroesOneSquareInAllChannelsAfterNormalization) {
  const Augmentation augmentation({.cutout = 2}, {{0, 0}, {1, 1}}, {2, 4, 4}, 3);
  std::set<std::ptrdiff_t> counts;
  for (std::int64_t index = 0; index < 200; ++index) {
    const std::vector<float> result = applied(augmentation, 0, index, numbered(32));
    const auto zeros = std::count(result.begin(), result.begin() + 16, 0.0f);
    for (std::size_t i = 0; i < 16; ++i) ASSERT_EQ(result[i] == 0, result[16 + i] == 0);
    counts.insert(zeros);
  }
  EXPECT_THAT(counts, ElementsAre(1, 2, 4));  // at a corner, at a border, inside
}

TEST(Augmentation, RefusesOptionsThatDoNotFitTheSamples) {
  EXPECT_THAT(error_of([] { Augmentation({.horizontal_flip = true}, {}, {10}, 0); }),
              HasSubstr("need images"));
  EXPECT_THAT(error_of([] {
                Augmentation({.crop_padding = 5}, {}, {1, 4, 4}, 0);
              }),
              HasSubstr("too large"));
  EXPECT_THAT(error_of([] {
                Augmentation({.cutout = -1}, {}, {1, 4, 4}, 0);
              }),
              HasSubstr("0 or more"));
}

}  // namespace
}  // namespace concord::data

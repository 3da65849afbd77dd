#include "concord/base/exact_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace concord {
namespace {

double sum_of(const std::vector<double>& numbers) {
  ExactSum sum;
  for (const double x : numbers) sum.add(x);
  return sum.rounded();
}

TEST(ExactSum, OfOneNumberIsTheNumber) {
  std::mt19937_64 random(1);
  const auto limits = std::numeric_limits<double>();
  std::vector<double> numbers = {0,
                                 1,
                                 -1,
                                 0.1,
                                 limits.max(),
                                 limits.lowest(),
                                 limits.min(),
                                 limits.denorm_min(),
                                 3 * limits.denorm_min()};
  for (int i = 0; i < 1000; ++i) {
    numbers.push_back(std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 900)) *
                      (i % 2 == 0 ? 1 : -1));
    numbers.push_back(
        std::ldexp(static_cast<double>(random()), -static_cast<int>(random() % 1000)));
  }
  for (const double x : numbers) EXPECT_EQ(sum_of({x}), x);
}

TEST(ExactSum, NothingIsRoundedBeforeTheEnd) {
  EXPECT_EQ(sum_of({1, 1e300, -1e300, 1e-300, -1}), 1e-300);
  EXPECT_EQ(sum_of({1e308, 1e308, -1e308}), 1e308);
  EXPECT_EQ(sum_of({1, -1}), 0);
  const double ulp = std::ldexp(1, -52);
  EXPECT_EQ(sum_of({1, ulp / 2}), 1);                             // half way: to even
  EXPECT_EQ(sum_of({1 + ulp, ulp / 2}), 1 + 2 * ulp);             // half way: to even
  EXPECT_EQ(sum_of({1, ulp / 2, std::ldexp(1, -900)}), 1 + ulp);  // a little more
  EXPECT_EQ(sum_of({-1, -ulp / 2, -std::ldexp(1, -900)}), -1 - ulp);
}

TEST(ExactSum, NeitherOrderNorGroupsChangeIt) {
  std::mt19937_64 random(2);
  std::vector<double> numbers;
  for (int i = 0; i < 3000; ++i) {
    const double x =
        std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 200) - 100);
    numbers.push_back(random() % 2 == 0 ? x : -x);
  }
  const double expected = sum_of(numbers);
  for (int round = 0; round < 5; ++round) {
    std::ranges::shuffle(numbers, random);
    ExactSum first, second;
    const std::size_t cut = random() % numbers.size();
    for (std::size_t i = 0; i < numbers.size(); ++i) (i < cut ? first : second).add(numbers[i]);
    first.add(second.digits());
    EXPECT_EQ(first.rounded(), expected);
  }
}

TEST(ExactSum, WhatIsNotFiniteShows) {
  EXPECT_TRUE(std::isnan(sum_of({1, std::numeric_limits<double>::infinity()})));
  EXPECT_TRUE(std::isnan(sum_of({std::nan(""), 1})));
  EXPECT_EQ(sum_of({std::numeric_limits<double>::max(), std::numeric_limits<double>::max()}),
            std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace concord

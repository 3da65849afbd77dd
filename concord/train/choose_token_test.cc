#include "concord/train/choose_token.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "concord/base/error.h"

namespace concord::train {
namespace {

const std::vector<float> kLogits = {0.5f, 2.0f, -1.0f, 2.0f, 1.0f};

// The share of evenly spaced draws that choose each token.
std::vector<double> shares(const ChoiceOptions& options) {
  constexpr int kDraws = 100000;
  std::vector<double> result(kLogits.size());
  for (int i = 0; i < kDraws; ++i) {
    const std::int32_t id = choose_token(kLogits, options, (i + 0.5) / kDraws);
    result[static_cast<std::size_t>(id)] += 1.0 / kDraws;
  }
  return result;
}

void expect_softmax(const ChoiceOptions& options, const std::vector<bool>& may_be_chosen) {
  const std::vector<double> given = shares(options);
  double sum = 0;
  for (std::size_t i = 0; i < kLogits.size(); ++i) {
    if (may_be_chosen[i]) sum += std::exp(kLogits[i] / options.temperature);
  }
  for (std::size_t i = 0; i < kLogits.size(); ++i) {
    const double expected = may_be_chosen[i] ? std::exp(kLogits[i] / options.temperature) / sum : 0;
    EXPECT_NEAR(given[i], expected, 2e-5) << "token " << i;
  }
}

TEST(ChooseToken, FollowsSoftmaxAtEachTemperature) {
  for (const double temperature : {0.3, 1.0, 4.0}) {
    expect_softmax({.temperature = temperature}, {true, true, true, true, true});
  }
}

TEST(ChooseToken, TopKLeavesTheLikeliestAndTheLowerIdOfEquals) {
  expect_softmax({.temperature = 0.7, .top_k = 3}, {false, true, false, true, true});
  expect_softmax({.temperature = 0.7, .top_k = 1}, {false, true, false, false, false});
  expect_softmax({.temperature = 0.7, .top_k = 5}, {true, true, true, true, true});
}

TEST(ChooseToken, TemperatureZeroTakesTheLikeliest) {
  for (const double uniform : {0.0, 0.999}) {
    EXPECT_EQ(choose_token(kLogits, {.temperature = 0}, uniform), 1);
  }
}

TEST(ChooseToken, TinyTemperaturesAndTheLastDrawStayInRange) {
  EXPECT_EQ(choose_token(kLogits, {.temperature = 1e-300}, 0.1), 1);
  EXPECT_EQ(choose_token(kLogits, {.temperature = 1e300}, std::nextafter(1.0, 0.0)), 4);
}

TEST(ChooseToken, LogitsThatAreNotFiniteAreAnError) {
  for (const float odd : {std::nanf(""), HUGE_VALF}) {
    const float logits[] = {1, odd, 2};
    for (const double temperature : {0.0, 1.0}) {
      EXPECT_THROW(choose_token(logits, {.temperature = temperature}, 0.5), Error);
    }
  }
}

}  // namespace
}  // namespace concord::train

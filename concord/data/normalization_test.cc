#include "concord/data/normalization.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "concord/base/parallel.h"
#include "concord/data/synthetic.h"
#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using testing::HasSubstr;

Targets labels(std::size_t count) {
  return class_targets(std::vector<std::int64_t>(count, 0), 1, "labels");
}

TEST(MeasureNormalization, MeasuresEachChannel) {
  // Two samples of two channels of two pixels.
  const auto dataset = float_dataset({2, 1, 2}, {1, 2, 7, 7, 3, 6, 7, 7}, labels(2));
  const Normalization result = measure_normalization(*dataset);
  EXPECT_FLOAT_EQ(result.mean[0], 3.0f);
  EXPECT_FLOAT_EQ(result.deviation[0], std::sqrt(14.0f / 4));
  EXPECT_FLOAT_EQ(result.mean[1], 7.0f);
  EXPECT_FLOAT_EQ(result.deviation[1], 1.0f);  // a constant channel
}

TEST(MeasureNormalization, SurvivesALargeOffset) {
  std::vector<float> values;
  for (int i = 0; i < 1000; ++i) values.push_back(i % 2 == 0 ? 1e6f : 1e6f + 1);
  const Normalization result = measure_normalization(*float_dataset({1}, values, labels(1000)));
  EXPECT_FLOAT_EQ(result.mean[0], 1e6f + 0.5f);
  EXPECT_FLOAT_EQ(result.deviation[0], 0.5f);
}

TEST(MeasureNormalization, SpreadsALimitedNumberOfSamplesOverTheData) {
  std::vector<float> values;
  for (int i = 0; i < 1000; ++i) values.push_back(static_cast<float>(i));
  const auto dataset = float_dataset({1}, values, labels(1000));
  EXPECT_FLOAT_EQ(measure_normalization(*dataset, 4).mean[0], 375.0f);  // 0, 250, 500, 750
}

TEST(MeasureNormalization, DoesNotDependOnTheNumberOfThreads) {
  const auto dataset = open_synthetic({.sample_shape = {2, 5}, .size = 3000});
  const int before = compute_threads();
  set_compute_threads(1);
  const Normalization one = measure_normalization(*dataset);
  set_compute_threads(3);
  const Normalization three = measure_normalization(*dataset);
  set_compute_threads(before);
  EXPECT_EQ(one.mean, three.mean);
  EXPECT_EQ(one.deviation, three.deviation);
}

TEST(CheckNormalization, RefusesWhatDoesNotFit) {
  EXPECT_EQ(error_of([] { check_normalization({}, {3, 2, 2}); }), "");
  EXPECT_THAT(error_of([] {
                check_normalization({{1}, {1}}, {3, 2, 2});
              }),
              HasSubstr("expected 3 of each"));
  EXPECT_THAT(error_of([] { check_normalization({{1}, {0}}, {1, 2, 2}); }), HasSubstr("positive"));
}

}  // namespace
}  // namespace concord::data

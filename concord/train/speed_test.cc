#include "concord/train/speed.h"

#include <gtest/gtest.h>

namespace concord::train {
namespace {

TEST(SpeedMeter, CountsFromTheFirstStep) {
  SpeedMeter meter;
  meter.resume(100);
  EXPECT_EQ(meter.samples_per_second(), 0);
  meter.step(100.5, 10, {.data_wait = 0.1, .communication = 0.1, .exposed = 0.025});
  EXPECT_DOUBLE_EQ(meter.samples_per_second(), 20);
  EXPECT_DOUBLE_EQ(meter.steps_per_second(), 2);
  EXPECT_DOUBLE_EQ(meter.data_wait_fraction(), 0.2);
  EXPECT_DOUBLE_EQ(meter.communication_fraction(), 0.05);
  EXPECT_DOUBLE_EQ(meter.hidden_fraction(), 0.75);
}

TEST(SpeedMeter, ForgetsWhatIsLongPast) {
  SpeedMeter meter;
  meter.resume(0);
  double now = 0;
  for (int i = 0; i < 100; ++i) meter.step(now += 1, 1, {.data_wait = 0.5});
  for (int i = 0; i < 400; ++i) meter.step(now += 0.25, 1, {});
  EXPECT_NEAR(meter.samples_per_second(), 4, 0.01);
  EXPECT_NEAR(meter.data_wait_fraction(), 0, 0.01);
}

TEST(SpeedMeter, OneSlowStepMovesTheRateOnlyByItsShare) {
  SpeedMeter meter;
  meter.resume(0);
  double now = 0;
  for (int i = 0; i < 1000; ++i) meter.step(now += 0.1, 8, {});
  meter.step(now += 1, 8, {});
  EXPECT_NEAR(meter.samples_per_second(), 80, 6);
}

TEST(SpeedMeter, PausesDoNotCount) {
  SpeedMeter meter;
  meter.resume(0);
  meter.step(1, 5, {});
  meter.pause(1);
  meter.resume(61);
  meter.step(62, 5, {});
  EXPECT_DOUBLE_EQ(meter.samples_per_second(), 5);
}

}  // namespace
}  // namespace concord::train

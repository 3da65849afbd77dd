#include "concord/optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "concord/base/error.h"

namespace concord {
namespace {

// 100 steps of training in epochs of 10 steps, from a base of 2.
double at(const ScheduleOptions& options, std::int64_t step) {
  return learning_rate(options, 2.0, step, 100, 10);
}

TEST(Schedule, ConstantStaysAtTheBase) {
  EXPECT_EQ(at({}, 0), 2.0);
  EXPECT_EQ(at({}, 99), 2.0);
}

TEST(Schedule, StepMultipliesAtMilestones) {
  const ScheduleOptions options{.name = "step", .milestones = {3, 6.5}, .gamma = 0.1};
  EXPECT_DOUBLE_EQ(at(options, 29), 2.0);
  EXPECT_DOUBLE_EQ(at(options, 30), 0.2);
  EXPECT_DOUBLE_EQ(at(options, 64), 0.2);
  EXPECT_DOUBLE_EQ(at(options, 65), 0.02);
}

TEST(Schedule, CosineFallsAlongHalfACosine) {
  const ScheduleOptions options{.name = "cosine", .final_learning_rate_fraction = 0.1};
  EXPECT_DOUBLE_EQ(at(options, 0), 2.0);
  EXPECT_NEAR(at(options, 25), 2 * (0.1 + 0.9 * 0.8535533905932737), 1e-12);
  EXPECT_NEAR(at(options, 50), 1.1, 1e-12);
  EXPECT_NEAR(at(options, 100), 0.2, 1e-12);
  EXPECT_NEAR(at(options, 150), 0.2, 1e-12);
}

TEST(Schedule, LinearFallsEvenly) {
  EXPECT_NEAR(at({.name = "linear"}, 25), 1.5, 1e-12);
  EXPECT_NEAR(at({.name = "linear", .final_learning_rate_fraction = 0.5}, 50), 1.5, 1e-12);
}

TEST(Schedule, PolynomialFallsWithAPower) {
  EXPECT_NEAR(at({.name = "polynomial"}, 25), 2 * 0.75 * 0.75, 1e-12);
  const ScheduleOptions cubic{
      .name = "polynomial", .final_learning_rate_fraction = 0.1, .power = 3};
  EXPECT_DOUBLE_EQ(at(cubic, 0), 2.0);
  EXPECT_NEAR(at(cubic, 50), 2 * (0.1 + 0.9 / 8), 1e-12);
  EXPECT_NEAR(at(cubic, 150), 0.2, 1e-12);
  const ScheduleOptions even{.name = "polynomial", .power = 1};
  EXPECT_NEAR(at(even, 37), at({.name = "linear"}, 37), 1e-12);
}

TEST(Schedule, InverseTimeDividesByOnePlusTime) {
  EXPECT_NEAR(at({.name = "inverse_time", .decay_rate = 0.5}, 6), 0.5, 1e-12);
}

TEST(Schedule, OneCycleRisesToThePeakAndFalls) {
  const ScheduleOptions options{.name = "one_cycle",
                                .final_learning_rate_fraction = 0.01,
                                .initial_learning_rate_fraction = 0.04,
                                .peak_fraction = 0.3};
  EXPECT_NEAR(at(options, 0), 0.08, 1e-12);
  EXPECT_NEAR(at(options, 15), 2 * (0.04 + 0.96 / 2), 1e-12);
  EXPECT_NEAR(at(options, 30), 2.0, 1e-12);
  EXPECT_NEAR(at(options, 65), 2 * (0.01 + 0.99 / 2), 1e-12);
  EXPECT_NEAR(at(options, 100), 0.02, 1e-12);
}

TEST(Schedule, WarmUpRisesToTheBaseAndShiftsWhatFollows) {
  for (const char* name : {"constant", "step", "cosine", "linear", "polynomial", "inverse_time"}) {
    const ScheduleOptions options{.name = name, .warmup_steps = 20};
    EXPECT_DOUBLE_EQ(at(options, 0), 0.1) << name;
    EXPECT_DOUBLE_EQ(at(options, 9), 1.0) << name;
    EXPECT_DOUBLE_EQ(at(options, 19), 2.0) << name;
    EXPECT_DOUBLE_EQ(at(options, 20), 2.0) << name;
  }
  EXPECT_NEAR(at({.name = "linear", .warmup_steps = 20}, 60), 1.0, 1e-12);
  EXPECT_NEAR(at({.name = "inverse_time", .warmup_steps = 20, .decay_rate = 0.1}, 30), 1.0, 1e-12);
}

TEST(Schedule, WarmUpAsLongAsTheTrainingEndsAtTheFinalRate) {
  EXPECT_DOUBLE_EQ(at({.name = "linear", .warmup_steps = 100}, 99), 2.0);
  EXPECT_DOUBLE_EQ(at({.name = "linear", .warmup_steps = 100}, 100), 0.0);
}

TEST(Schedule, RefusesWhatHasNoMeaning) {
  EXPECT_THROW(at({.name = "sawtooth"}, 0), Error);
  EXPECT_THROW(at({.name = "polynomial", .power = 0}, 0), Error);
  EXPECT_THROW(at({.name = "one_cycle", .warmup_steps = 5}, 0), Error);
  EXPECT_THROW(at({.name = "one_cycle", .peak_fraction = 1}, 0), Error);
  EXPECT_THROW(at({}, -1), Error);
  EXPECT_THROW(learning_rate({}, 1.0, 0, 0, 1), Error);
}

}  // namespace
}  // namespace concord

#include "concord/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "concord/base/error.h"

namespace concord {
namespace {

// From 1 at t = 0 down to 0 at t = 1 along half a cosine.
double half_cosine(double t) { return (1 + std::cos(std::numbers::pi * t)) / 2; }

double between(double low, double high, double share) { return low + (high - low) * share; }

void check(const ScheduleOptions& o, std::int64_t step, std::int64_t total_steps,
           std::int64_t steps_per_epoch) {
  if (step < 0 || total_steps < 1 || steps_per_epoch < 1) {
    fail("schedule: step {} of {}, {} in an epoch: expected a step from 0 and positive numbers",
         step, total_steps, steps_per_epoch);
  }
  if (o.warmup_steps < 0) {
    fail("schedule: warmup_steps = {}: expected 0 or a positive number", o.warmup_steps);
  }
  if (!(o.power > 0)) fail("schedule: power = {}: expected a positive number", o.power);
  if (o.name != "one_cycle") return;
  if (o.warmup_steps > 0) {
    fail("schedule: warmup_steps = {}: expected 0, since one_cycle has its own warm-up",
         o.warmup_steps);
  }
  if (!(o.peak_fraction > 0 && o.peak_fraction < 1)) {
    fail("schedule: peak_fraction = {}: expected a number between 0 and 1", o.peak_fraction);
  }
}

double one_cycle(const ScheduleOptions& o, double u) {
  const double p = o.peak_fraction;
  if (u < p) return between(o.initial_learning_rate_fraction, 1, 1 - half_cosine(u / p));
  return between(o.final_learning_rate_fraction, 1, half_cosine((u - p) / (1 - p)));
}

}  // namespace

double learning_rate(const ScheduleOptions& o, double base, std::int64_t step,
                     std::int64_t total_steps, std::int64_t steps_per_epoch) {
  check(o, step, total_steps, steps_per_epoch);
  if (step < o.warmup_steps) {
    return base * static_cast<double>(step + 1) / static_cast<double>(o.warmup_steps);
  }
  const auto since_warmup = static_cast<double>(step - o.warmup_steps);
  const std::int64_t rest = total_steps - o.warmup_steps;
  const double t = rest > 0 ? std::min(1.0, since_warmup / static_cast<double>(rest)) : 1.0;
  if (o.name == "constant") return base;
  if (o.name == "step") {
    const double epoch = static_cast<double>(step) / static_cast<double>(steps_per_epoch);
    const auto passed = std::count_if(o.milestones.begin(), o.milestones.end(),
                                      [=](double milestone) { return milestone <= epoch; });
    return base * std::pow(o.gamma, static_cast<double>(passed));
  }
  if (o.name == "cosine") return base * between(o.final_learning_rate_fraction, 1, half_cosine(t));
  if (o.name == "linear") return base * between(o.final_learning_rate_fraction, 1, 1 - t);
  if (o.name == "polynomial") {
    return base * between(o.final_learning_rate_fraction, 1, std::pow(1 - t, o.power));
  }
  if (o.name == "inverse_time") return base / (1 + o.decay_rate * since_warmup);
  if (o.name == "one_cycle") return base * one_cycle(o, t);
  fail(
      "schedule: there is no \"{}\"; choose constant, step, cosine, linear, polynomial, "
      "inverse_time "
      "or one_cycle",
      o.name);
}

}  // namespace concord

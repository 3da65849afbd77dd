// Learning-rate schedules.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace concord {

struct ScheduleOptions {
  // constant, step, cosine, linear, polynomial, inverse_time or one_cycle
  std::string name = "constant";
  std::int64_t warmup_steps = 0;   // w: steps of linear warm-up; 0 for one_cycle, which has its own
  std::vector<double> milestones;  // step: epochs, increasing
  double gamma = 0.1;              // step: the factor at each milestone
  double decay_rate = 0.001;       // d of inverse_time, for one step
  double final_learning_rate_fraction = 0;  // f of cosine, linear, polynomial, one_cycle
  // q of polynomial. 2 as You et al. 2017 train with LARS; 1 would be linear.
  double power = 2;
  double initial_learning_rate_fraction = 0.04;  // i of one_cycle
  double peak_fraction = 0.3;  // p of one_cycle: the share of the steps before its peak, in (0, 1)
};

// The learning rate of step s = 0, 1, ..., S - 1, where S is `total_steps`, n is `base`, and the
// other letters are the options'. For s < w it is n (s + 1) / w. From there on, with
// t = (s - w) / (S - w), held at 1 from step S on:
//   constant      n
//   step          n gamma^m, m being the number of milestones <= s / steps_per_epoch
//   cosine        n (f + (1 - f) (1 + cos(pi t)) / 2)      (Loshchilov and Hutter 2017)
//   linear        n (1 - (1 - f) t)
//   polynomial    n (f + (1 - f) (1 - t)^q)
//   inverse_time  n / (1 + d (s - w))
//   one_cycle     with u = s / S: n (i + (1 - i) (1 - cos(pi u / p)) / 2) for u < p, then
//                 n (f + (1 - f) (1 + cos(pi (u - p) / (1 - p))) / 2)   (Smith and Topin 2019)
// Throws Error for an unknown schedule or numbers outside their ranges.
double learning_rate(const ScheduleOptions& options, double base, std::int64_t step,
                     std::int64_t total_steps, std::int64_t steps_per_epoch);

}  // namespace concord

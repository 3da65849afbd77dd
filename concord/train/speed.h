// SpeedMeter: how fast a run is, over its last seconds, and how long the rest will take.
// Thread safety: one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace concord::train {

class SpeedMeter {
 public:
  // Training begins, or goes on after a pause such as an evaluation, which does not count.
  void resume(double now);
  // Training pauses at `now`, the time of the last step.
  void pause(double now);
  // A step of `samples` ended at `now`, in seconds; `waited`: seconds spent waiting for data in it.
  void step(double now, std::int64_t samples, double waited);

  // Over the last kWindow seconds of training, or all of it where it is shorter; 0 before the first
  // step.
  double samples_per_second() const { return rate(&Mark::samples); }
  double steps_per_second() const { return rate(&Mark::steps); }
  double waited_fraction() const { return rate(&Mark::waited); }

 private:
  static constexpr double kWindow = 15;
  static constexpr std::size_t kMarks = 60;

  // The sums up to a time of training.
  struct Mark {
    double time = 0;
    double samples = 0;
    double steps = 0;
    double waited = 0;
  };
  double rate(double Mark::*sum) const;

  double resumed_at_ = 0;
  double trained_before_ = 0;  // seconds, up to the last pause
  Mark now_;
  std::array<Mark, kMarks>
      marks_;             // a ring, oldest at next_ once it is full; one each kWindow / kMarks
  std::size_t next_ = 1;  // marks_[0] is the start
  std::size_t count_ = 1;
};

}  // namespace concord::train

// SpeedMeter: how fast a run is, over its last seconds, and how long the rest will take.
// Thread safety: one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace concord::train {

// Seconds of a step in which something else than computing went on.
struct StepTimes {
  double data_wait = 0;      // of those, waiting for data
  double communication = 0;  // in collectives, beside computing or not
  double exposed = 0;        // of communication, those in which the rank waited for it
};

class SpeedMeter {
 public:
  // Training begins, or goes on after a pause such as an evaluation, which does not count.
  void resume(double now);
  // Training pauses at `now`, the time of the last step.
  void pause(double now);
  // A step of `samples` ended at `now`, in seconds.
  void step(double now, std::int64_t samples, const StepTimes& times);

  // Over the last kWindow seconds of training, or all of it where it is shorter; 0 before the first
  // step.
  double samples_per_second() const { return rate(&Mark::samples); }
  double steps_per_second() const { return rate(&Mark::steps); }
  double data_wait_fraction() const { return rate(&Mark::data_wait); }
  double communication_fraction() const { return rate(&Mark::exposed); }
  // Of all communication, the share that went on beside computing.
  double hidden_fraction() const;

 private:
  static constexpr double kWindow = 15;
  static constexpr std::size_t kMarks = 60;

  // The sums up to a time of training.
  struct Mark {
    double time = 0;
    double samples = 0;
    double steps = 0;
    double data_wait = 0;
    double communication = 0;
    double exposed = 0;
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

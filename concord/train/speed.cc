#include "concord/train/speed.h"

#include <algorithm>

namespace concord::train {

void SpeedMeter::resume(double now) { resumed_at_ = now; }

void SpeedMeter::pause(double now) { trained_before_ += now - resumed_at_; }

void SpeedMeter::step(double now, std::int64_t samples, const StepTimes& times) {
  now_.time = trained_before_ + now - resumed_at_;
  now_.samples += static_cast<double>(samples);
  now_.steps += 1;
  now_.data_wait += times.data_wait;
  now_.communication += times.communication;
  now_.exposed += times.exposed;
  const Mark& newest = marks_[(next_ + kMarks - 1) % kMarks];
  if (now_.time - newest.time < kWindow / kMarks) return;
  marks_[next_] = now_;
  next_ = (next_ + 1) % kMarks;
  count_ = std::min(count_ + 1, kMarks);
}

double SpeedMeter::rate(double Mark::*sum) const {
  const Mark& oldest = marks_[(next_ + kMarks - count_) % kMarks];
  const double seconds = now_.time - oldest.time;
  return seconds > 0 ? (now_.*sum - oldest.*sum) / seconds : 0;
}

double SpeedMeter::hidden_fraction() const {
  const double communication = rate(&Mark::communication);
  return communication > 0 ? std::max(0.0, 1 - rate(&Mark::exposed) / communication) : 0;
}

}  // namespace concord::train

// A moment by which something must have happened.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "concord/base/clock.h"

namespace concord {

class Deadline {
 public:
  // Infinity: never.
  static Deadline in(double seconds) { return Deadline(now_seconds() + seconds, seconds); }
  static Deadline never() { return in(std::numeric_limits<double>::infinity()); }

  bool has_passed() const { return now_seconds() >= at_; }
  double seconds_left() const { return std::max(0.0, at_ - now_seconds()); }
  // For poll(2): rounded up, so that a wait of this length ends behind the deadline; -1 for never.
  int milliseconds_left() const {
    if (std::isinf(at_)) return -1;
    return static_cast<int>(std::min(1e9, std::ceil(seconds_left() * 1e3)));
  }
  // The time that was given when the deadline was set, for messages.
  double seconds_given() const { return given_; }

 private:
  Deadline(double at, double given) : at_(at), given_(given) {}
  double at_, given_;
};

}  // namespace concord

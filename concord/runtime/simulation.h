// Simulation: the timelines of a job's ranks (timeline.h) on a virtual clock.
//
// A rank does one thing after another; an operation begins when all who take part have come to it
// and its group's last is done, and those who await it go on when it ends. Ranks that do the same
// at the same time are folded into one. What nobody could measure is assumed: where a host has no
// core to spare, a rank stops computing while an operation of its goes on.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "concord/runtime/timeline.h"
#include "concord/runtime/trace.h"

namespace concord {

struct SimulatedRank {
  const Timeline* timeline = nullptr;
  int rank = 0;            // its number in the job; of several folded into one, that of the first
  std::int64_t ranks = 1;  // so many
  // Which ranks along "data", "pipe" and "tensor" they are.
  int column = 0, row = 0, slice = 0;
  int host = 0;  // those of one host, or of hosts that are alike, share cores and memory
  bool has_spare_core = false;  // for operations, beside those that it computes on
};

// Seconds that an operation takes from when the last of its ranks has come; `rank`: one of them.
using OperationSeconds = std::function<double(const TimelineOperation&, const SimulatedRank& rank)>;

struct SimulatedTime {
  double compute = 0;  // seconds of a step,
  double waited = 0;   // and those in which it waited for others
};

struct Simulation {
  double step_seconds = 0;           // of a step among others
  std::vector<SimulatedTime> ranks;  // in the order of the ranks given
  JobTrace trace;                    // of a step, in that order; empty unless it was asked for
};

// Ranks that wait for each other forever are a broken invariant.
Simulation simulate(std::span<const SimulatedRank> ranks, const OperationSeconds& seconds,
                    bool traced = false);

}  // namespace concord

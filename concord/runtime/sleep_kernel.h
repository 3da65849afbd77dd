// Programs that pretend: in the place of each kernel stands one that sleeps. Order, memory,
// messages and collectives are those of the program; only what is computed is not. Ranks that sleep
// share cores well, so that two cores show what happens when in a pipeline of eight ranks.
//
// Kernels between which nothing is sent, received, summed or awaited sleep once, for all of them
// together, and what one sleep took a little too long the next is shorter, so that the sum is
// right. A program that pretends keeps on doing so, and leaves what was in memory before: the
// numbers of its steps mean nothing.
#pragma once

#include <functional>
#include <span>

#include "concord/runtime/program.h"

namespace concord {

// Each kernel takes as many seconds as this says of its step.
void pretend(Program& program, const std::function<double(const ProgramStep&)>& seconds_of);

// Each half of a microbatch takes as many seconds as this says, by half, before it sends anything;
// there may be more of these than halves. Prologue and update take none.
void pretend_halves(Program& program, std::span<const double> seconds);

// Whether it has anything to compute.
bool computes(const Program& program, std::size_t half);

}  // namespace concord

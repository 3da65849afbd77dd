// Pipelines: what the ranks along "pipe" have to know of each other to compute the stages of a
// model together: who does what in which order (parallel/schedule.h), and by which streams of
// messages.
#pragma once

#include <cstdint>
#include <map>

#include "concord/comm/communicator.h"
#include "concord/parallel/plan.h"
#include "concord/runtime/messages.h"

namespace concord::train {

// Whether steps overlap: several ranks along "pipe", and a schedule that does not flush.
bool overlaps_steps(const parallel::Plan& plan);

// Collective when it is called first: the ranks along "pipe". What they do in overlapping steps is
// in no order with what all ranks do between steps, so that they have a communicator for it.
comm::Communicator& ranks_along_pipe(const parallel::Plan& plan, comm::Communicator& ranks);

// Of a step of so many microbatches, which may be fewer than check_pipeline asks for; of an
// evaluation, which has forward passes alone. `rank`: its place along "pipe". `most`: in the order
// of so many, where ranks along "data" keep to one order and have more.
PipelineOrder order_of_steps(const parallel::Plan& plan, int rank, std::int64_t microbatches,
                             std::int64_t most = 0);
PipelineOrder order_of_evaluations(const parallel::Plan& plan, int rank, std::int64_t microbatches);

// Collective: a communicator of two ranks for each of the plan's streams. Those that this rank
// belongs to; they are `ranks`' own.
using Streams = std::map<parallel::Stream, comm::Communicator*>;
Streams join_streams(const parallel::Plan& plan, comm::Communicator& ranks);

// The program sleeps in the place of computing (runtime/sleep_kernel.h): a forward pass of a
// microbatch through a stage, the gradients of its inputs and those of its weights take `seconds`
// each, one after the other where the schedule does not split them, and in the first stage, which
// sends no gradients of inputs.
void pretend_equal_stages(Program& program, const parallel::Plan& plan, double seconds);

}  // namespace concord::train

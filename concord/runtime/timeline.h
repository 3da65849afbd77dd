// Timeline: what a rank does in a step, one thing after another, as the executor does it
// (executor.cc), read off its programs. The simulator runs it on a virtual clock (simulation.h).
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "concord/runtime/messages.h"
#include "concord/runtime/op_costs.h"
#include "concord/runtime/program.h"
#include "concord/runtime/step_sums.h"

namespace concord {

// What several ranks do together: the n-th of its group, or a message.
struct TimelineOperation {
  std::string group;  // an axis, "" for all ranks, or the stream of a message
  comm::Operation::Kind kind = comm::Operation::Kind::kBarrier;
  std::size_t bytes = 0;  // what one rank holds on the larger side
  comm::Label label;
  int from = 0, to = 0;  // of a message: places along "pipe"
  bool is_send = false;
  std::int64_t microbatch = 0, number = 0;  // of a message: which it is in its stream
};

struct TimelineEvent {
  enum class Kind : std::uint8_t {
    kCompute,  // for `cost`
    kStart,    // an operation, which goes on meanwhile
    kAwait,    // until it is done
    kBegin,    // a half of a microbatch: `name` is its kind, `about` which it is
    kEnd,
    kStepEnd
  };
  Kind kind = Kind::kCompute;
  OpCost cost;
  comm::Label name, about;    // of what is computed
  std::size_t operation = 0;  // of Timeline::operations
};

// Of one step, which is run several times, or of several that overlap, which are run once. The time
// of a step is that of those from the end of step `begin` to the end of step `end`.
struct Timeline {
  std::vector<TimelineEvent> events;
  std::vector<TimelineOperation> operations;
  int runs = 2;  // the first begins with nothing under way; the second is one among others
  int begin = 0, end = 1;
};

// What the costs of a timeline are taken from.
struct TimelineCosts {
  // Of a step with a kernel, in a microbatch of the rank or, by -1, outside of them.
  std::function<OpCost(const Program&, const ProgramStep&, std::int64_t microbatch)> of_step;
  // Of setting a microbatch's inputs.
  std::function<OpCost(const Program&, std::int64_t microbatch)> of_inputs;
  // Of adding so many bytes to as many, and of copying them.
  std::function<OpCost(std::size_t)> of_addition, of_copy;
  // Where it is known, of adding a microbatch's contribution to a bucket of its program, by number,
  // to those before it.
  std::function<OpCost(std::size_t bucket, std::int64_t microbatch)> of_bucket = {};
};

// A rank's part of a step.
struct RankStep {
  struct Microbatch {
    const Program* program = nullptr;
    MicrobatchPlace place;
    double share = 1;  // of its costs, where it is not a full one
  };
  std::vector<Microbatch> microbatches;
  StepPlace place;
  int data_ranks = 1, pipe_ranks = 1, place_along_pipe = 0;
  bool has_common_memory = false;        // the ranks along data
  const PipelineOrder* order = nullptr;  // where halves are computed on their own
  // Where steps overlap, of this rank and of the first along the pipe: how many are in flight.
  int steps_in_flight = 1, most_in_flight = 1;
  std::size_t kept_bytes = 0;  // that an update copies, of weights that microbatches still read
};

Timeline timeline_of(const RankStep& step, const TimelineCosts& costs);
// Of so many steps that overlap, as Engine::stream has them, `step` being one of them.
Timeline timeline_of_stream(const RankStep& step, const TimelineCosts& costs);

}  // namespace concord

// Trace: what a rank did when, for a few steps; and the traces of all ranks on one clock
// (formats/trace_file.h writes them).
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "concord/comm/communicator.h"

namespace concord {

// What goes on at one time beside others. kPipeline: the halves of microbatches, which compute what
// is in kCompute.
enum class Lane : std::uint8_t { kCompute, kCommunication, kData, kPipeline };

// "compute", "communication", "data", "pipeline"
std::string_view name_of(Lane lane);

struct TraceEvent {
  // An op and its layer; a collective and its tensors; of a pipeline "forward", "backward" or
  // "weights", and "microbatch 3, chunk 0".
  comm::Label name, about;
  Lane lane = Lane::kCompute;
  std::int64_t step = 0;
  double begin = 0, end = 0;  // now_seconds()
};

// Remembers events. Nothing is allocated after it was made; what does not fit is counted.
class Trace {
 public:
  explicit Trace(std::size_t most_events) { events_.reserve(most_events); }

  void set_step(std::int64_t step) { step_ = step; }
  void add(Lane lane, std::string_view name, std::string_view about, double begin, double end);
  // Those of the communicator's operations that have ended and were started after the last call.
  void add_operations(const comm::Communicator& ranks);
  void skip_operations(const comm::Communicator& ranks);

  std::span<const TraceEvent> events() const { return events_; }
  std::size_t dropped() const { return dropped_; }

 private:
  std::vector<TraceEvent> events_;
  std::size_t dropped_ = 0;
  std::int64_t step_ = 0;
  double last_start_ = 0;  // of an operation
};

// By how much this rank's clock is ahead of rank 0's, in seconds. Collective.
double clock_offset(comm::Communicator& ranks);

// By rank.
using JobTrace = std::vector<std::vector<TraceEvent>>;

// The events of all ranks, with times since the first of them, at rank 0; of others nothing.
// Collective.
JobTrace gather_traces(const Trace& trace, comm::Communicator& ranks);

// Of a step: what parallel/schedule.h calls bubble, of all ranks that compute microbatches in
// halves, from the beginning of the first to the end of the last. Nothing where there are none.
std::optional<double> measured_bubble(const JobTrace& trace, std::int64_t step);

// Seconds a rank spent in the lanes of a trace.
struct TraceSummary {
  double seconds = 0;  // from the first event to the end of the last, of all ranks
  double compute = 0;
  double communication = 0;  // in collectives
  double exposed = 0;        // of that, those in which it did not compute
  double data_wait = 0;
};
TraceSummary summarize(std::span<const TraceEvent> events, double seconds);
// From the first event of all ranks to the last one's end.
double seconds_of(const JobTrace& trace);

}  // namespace concord

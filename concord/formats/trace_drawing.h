// The trace of a step as a picture, in SVG: a row for each rank and time from left to right.
//
// Of a pipeline the boxes are the halves of microbatches, by kind and chunk in colour, with the
// number of the microbatch: what is left of the row is idle time. Where a step has no such halves
// the boxes are ops, and below them what is communicated.
// Thread safety: pure functions. The trace is not trusted: whatever it says, a picture has at most
// some thousand boxes a rank.
#pragma once

#include <optional>
#include <string>

#include "concord/runtime/trace.h"

namespace concord::formats {

struct TraceDrawing {
  std::string svg;
  std::int64_t step = 0;
  double seconds = 0;            // from the first box to the end of the last
  std::optional<double> bubble;  // measured_bubble(), of a pipeline
};

// `step`: none for the last one of which every rank that the trace has events of has some. Throws
// Error where the trace has nothing of the step, or more ranks than can be drawn.
TraceDrawing draw_trace(const JobTrace& trace, std::optional<std::int64_t> step = {});

}  // namespace concord::formats

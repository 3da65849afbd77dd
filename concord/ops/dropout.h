// Dropout (Srivastava et al. 2014).
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

struct DropoutOptions {
  double rate = 0.5;         // probability of dropping an element, in [0, 1)
  std::uint64_t seed = 0;    // the job's seed
  std::uint32_t stream = 0;  // tells the dropouts of one model apart
};

// x with each element dropped (set to 0) with probability `rate`, else scaled by 1 / (1 - rate).
// x is [N, ...]. `position` is i64 [2]: the training step, and the index of the microbatch's first
// sample in the global batch. The draw of an element is keyed by (seed, stream, step, its index in
// the global batch), so it does not depend on how the batch is cut up. The gradient drops the same
// elements; the mask is drawn again and never stored. Rate 0 adds no node.
ValueId dropout(GraphBuilder& builder, ValueId x, ValueId position, const DropoutOptions& options);

}  // namespace concord::ops

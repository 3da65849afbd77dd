// Dropout (Srivastava et al. 2014).
#pragma once

#include <cstdint>

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

// For kernels: where the elements of a node's x lie in those of the samples that all ranks have
// together. Without the attributes sample_elements, run, stride and offset, they are all of them.
struct DropoutPlace {
  std::int64_t sample_elements;  // of one sample of the whole
  std::int64_t run;              // elements that follow each other, here as there
  std::int64_t stride;           // from one run's beginning to the next, in the whole
  std::int64_t offset;           // of the first run, in the whole

  // The place of element i of x in the whole.
  std::int64_t of(std::int64_t i) const { return offset + i / run * stride + i % run; }
};
DropoutPlace dropout_place(const Node& node, const Shape& x);

}  // namespace concord::ops

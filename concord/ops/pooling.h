// Two-dimensional pooling: each element of y summarises a window of its channel of x. Windows that
// would reach beyond the padding are left out (sizes round down).
#pragma once

#include <array>

#include "concord/graph/builder.h"

namespace concord::ops {

// Along H and W.
struct Pool2dOptions {
  std::array<std::int64_t, 2> kernel{1, 1};
  std::array<std::int64_t, 2> stride{1, 1};
  std::array<std::int64_t, 2> padding{0, 0};  // on both sides; smaller than the kernel
};

// [N, C, H, W] -> [N, C, P, Q]: the largest element of each window; padding never wins. The node's
// second output, the index, holds for each element of y the place r Kw + s of its maximum within
// the window (the first of equals), as u8 where the window has at most 255 elements and i32
// otherwise.
ValueId max_pool2d(GraphBuilder& builder, ValueId x, const Pool2dOptions& options);

// The mean of each window: over its elements inside of x, or with `count_include_pad` over the
// whole window, padding counting as zeros.
ValueId avg_pool2d(GraphBuilder& builder, ValueId x, const Pool2dOptions& options,
                   bool count_include_pad = false);

// The mean of each channel: [N, C, H, W] -> [N, C, 1, 1].
ValueId global_average_pool(GraphBuilder& builder, ValueId x);

}  // namespace concord::ops

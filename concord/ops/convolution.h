// Two-dimensional convolution (cross-correlation, as in every deep-learning library).
//
//   y[n, o, p, q] = bias[o] + sum over i, r, s of
//       x[n, g I/groups + i, p stride + r dilation - padding, ...] w[o, i, r, s]
//
// where g is the group of output channel o, and x is zero outside of its extent.
#pragma once

#include <array>

#include "concord/graph/builder.h"

namespace concord::ops {

// Along H and W.
struct Conv2dOptions {
  std::array<std::int64_t, 2> stride{1, 1};
  std::array<std::int64_t, 2> padding{0, 0};  // zeros on both sides
  std::array<std::int64_t, 2> dilation{1, 1};
  std::int64_t groups = 1;  // channels fall into groups that do not see each other
};

// x is [N, I, H, W], w [O, I/groups, Kh, Kw], `bias` [O] or kNoValue; y is [N, O, P, Q] with
// P = (H + 2 padding - dilation (Kh - 1) - 1) / stride + 1, rounded down, and Q likewise.
ValueId conv2d(GraphBuilder& builder, ValueId x, ValueId w, const Conv2dOptions& options = {},
               ValueId bias = kNoValue);

}  // namespace concord::ops

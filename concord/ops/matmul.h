// Matrix product with optional transposes and bias.
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

struct MatmulOptions {
  bool transpose_a = false;
  bool transpose_b = false;
};

// y = op(a) op(b): op(a) is [..., M, K], op(b) [..., K, N], y [..., M, N]; op transposes the last
// two dims where asked. Leading dims are equal. `bias` (or kNoValue) is [N] and is added to every
// row.
ValueId matmul(GraphBuilder& builder, ValueId a, ValueId b, MatmulOptions options = {},
               ValueId bias = kNoValue);

}  // namespace concord::ops

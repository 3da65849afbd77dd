// Element-wise arithmetic. Binary ops broadcast as numpy does (tensor/shape.h).
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

ValueId add(GraphBuilder& builder, ValueId a, ValueId b);
ValueId mul(GraphBuilder& builder, ValueId a, ValueId b);

// x times a constant.
ValueId scale(GraphBuilder& builder, ValueId x, double factor);

// The gradient of a broadcast: `gradient` summed over the dims that broadcasting stretched, so that
// it has `shape` again.
ValueId sum_to_shape(GraphBuilder& builder, ValueId gradient, const Shape& shape);

// x stretched to `shape`.
ValueId broadcast_to(GraphBuilder& builder, ValueId x, const Shape& shape);

}  // namespace concord::ops

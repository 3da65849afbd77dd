// Element-wise arithmetic. Binary ops broadcast as numpy does (tensor/shape.h) and take operands of
// one element type.
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

ValueId add(GraphBuilder& builder, ValueId a, ValueId b);
ValueId sub(GraphBuilder& builder, ValueId a, ValueId b);
ValueId mul(GraphBuilder& builder, ValueId a, ValueId b);
ValueId div(GraphBuilder& builder, ValueId a, ValueId b);

// 1 where a == b, else 0. Not differentiable.
ValueId equal(GraphBuilder& builder, ValueId a, ValueId b);

ValueId neg(GraphBuilder& builder, ValueId x);
ValueId exp(GraphBuilder& builder, ValueId x);
ValueId log(GraphBuilder& builder, ValueId x);  // natural; NaN below 0, -infinity at 0
ValueId sqrt(GraphBuilder& builder, ValueId x);
ValueId abs(GraphBuilder& builder, ValueId x);
ValueId square(GraphBuilder& builder, ValueId x);

// x times a constant.
ValueId scale(GraphBuilder& builder, ValueId x, double factor);

// x, or the nearest of `low` and `high` where x is outside of them.
ValueId clamp(GraphBuilder& builder, ValueId x, double low, double high);

// The gradient of a broadcast: `gradient` summed over the dims that broadcasting stretched, so that
// it has `shape` again.
ValueId sum_to_shape(GraphBuilder& builder, ValueId gradient, const Shape& shape);

// x stretched to `shape`.
ValueId broadcast_to(GraphBuilder& builder, ValueId x, const Shape& shape);

}  // namespace concord::ops

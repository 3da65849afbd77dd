// Ops that give a step its form: constants, and the sum over the leaves of the batch.
#pragma once

#include <string_view>

#include "concord/graph/builder.h"

namespace concord::ops {

inline constexpr std::string_view kLeafTotal = "leaf_total";

// A tensor of this type whose every element is `value`. Not differentiable: it has no inputs.
ValueId constant(GraphBuilder& builder, const TensorType& type, double value);

// The sum of x over all leaves of the step, along the canonical binary tree (docs/architecture.md,
// idea 2); within a leaf, microbatches are added in order. Data-parallel execution makes the upper
// part of the tree an all-reduce. Applied to gradients and metrics, after backpropagation: it has
// no gradient.
ValueId leaf_sum(GraphBuilder& builder, ValueId x);

// The same sum, but for the leaves themselves: each goes on with it. So the leaves of a step are
// computed side by side, each by a rank of its own and in one microbatch. The gradient of a total
// is the total of the gradients.
ValueId leaf_total(GraphBuilder& builder, ValueId x);

}  // namespace concord::ops

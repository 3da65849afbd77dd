// Ops that give a step its form: constants, and the sum over the leaves of the batch.
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

// A tensor of this type whose every element is `value`. Not differentiable: it has no inputs.
ValueId constant(GraphBuilder& builder, const TensorType& type, double value);

// The sum of x over all leaves of the step, along the canonical binary tree (docs/architecture.md,
// idea 2); within a leaf, microbatches are added in order. Data-parallel execution makes the upper
// part of the tree an all-reduce. Applied to gradients and metrics, after backpropagation: it has
// no gradient.
ValueId leaf_sum(GraphBuilder& builder, ValueId x);

}  // namespace concord::ops

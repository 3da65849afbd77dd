// Backpropagation: reverse-mode differentiation of a graph (Rumelhart, Hinton, Williams 1986;
// Linnainmaa 1970). See docs/backpropagation.md.
#pragma once

#include <span>
#include <vector>

#include "concord/graph/builder.h"

namespace concord {

// Appends to the graph the nodes that compute dL/d(value) for each value of `with_respect_to`,
// where L is the scalar `loss`, and returns those gradients in order; a gradient is kNoValue where
// L does not depend on the value. Each gradient has the shape of its value. Throws Error when
// `loss` is not a scalar, or names the op that has no gradient rule.
std::vector<ValueId> backpropagate(GraphBuilder& builder, ValueId loss,
                                   std::span<const ValueId> with_respect_to);

}  // namespace concord

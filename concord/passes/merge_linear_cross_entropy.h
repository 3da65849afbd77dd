// Leaves one op where linear_cross_entropy and its backward op stand in one graph: the backward op,
// which computes the loss too, moves to the forward op's place. Of four products of the size of the
// logits' three are left, and the gradients are there before backpropagation begins.
//
//   loss, correct = linear_cross_entropy(x, ...)                          ->  (dropped)
//   _, _, dx, dw = linear_cross_entropy_backward(constant, x, ...)        ->  loss, correct, dx, dw
//
// Applies where dL/dloss is a constant, as it is where the loss is what is differentiated.
#pragma once

#include "concord/graph/graph.h"

namespace concord {

Graph merge_linear_cross_entropy(const Graph& graph);

}  // namespace concord

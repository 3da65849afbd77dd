// Fuses a batch norm with the ReLU behind it, forward and backward: one trip through memory in
// place of two, and one activation kept in place of two.
//
//   y = relu(batch_norm(x, ...))                        ->  batch_norm(x, ...) {relu}
//   batch_norm_backward(relu_backward(dy, y), x, ...)   ->  batch_norm_backward(dy, x, ..., y)
//   {relu}
//
// Applies where nothing else reads what lies between the two.
#pragma once

#include "concord/graph/graph.h"

namespace concord {

Graph fuse_batch_norm_relu(const Graph& graph);

}  // namespace concord

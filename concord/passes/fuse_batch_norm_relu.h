// Fuses a batch norm with the ReLU behind it, and with the addition between the two that ends the
// branch of a residual block: forward and backward one trip through memory in place of two or
// three, and one activation kept.
//
//   y = relu(batch_norm(x, ...))           ->  y = batch_norm(x, ...) {relu}
//   y = relu(batch_norm(x, ...) + z)       ->  y = batch_norm(x, ..., z) {relu}
//
//   g = relu_backward(dy, y)
//   dx = batch_norm_backward(g, x, ...)    ->  dx, g = batch_norm_backward(dy, x, ..., y) {relu}
//
// Applies where nothing else reads what lies between, and where z is there before the batch norm.
#pragma once

#include "concord/graph/graph.h"

namespace concord {

Graph fuse_batch_norm_relu(const Graph& graph);

}  // namespace concord

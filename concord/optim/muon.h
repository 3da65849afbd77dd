// What Muon (Jordan et al. 2024) is made of, as graph builders over other ops.
#pragma once

#include <set>

#include "concord/graph/builder.h"

namespace concord {

// Nearly the closest matrix to `x` [rows, columns] with orthonormal rows, or columns where those
// are fewer: U V^T where x = U S V^T. Five Newton-Schulz iterations on x / |x|, with A = X X^T:
//   X <- a X + (b A + c A^2) X,    a, b, c = 3.4445, -4.7750, 2.0315
// Jordan's coefficients bring singular values quickly to between 0.7 and 1.2 and no nearer to 1.
ValueId orthogonalize(GraphBuilder& builder, ValueId x);

// The parameters that are a hidden layer's matrix or filters: those of rank 2 or more that a
// matmul, conv2d or linear_cross_entropy reads, but not by the last such node before the output
// "loss" (the classifier), nor also by a gather (embeddings). Throws Error where there is no output
// "loss".
std::set<ValueId> hidden_matrices(const Graph& graph);

}  // namespace concord

// Products of matrices, or of stacks of them, by the faster of oneDNN's kernels. They are
// row-major.
#pragma once

#include <memory>
#include <optional>

#include "concord/kernels/kernel.h"

namespace concord::cpu {

// y = op(a) op(b) + bias, or y += op(a) op(b): shapes as in ops/matmul.h.
struct Product {
  TensorType a, b, y;
  std::optional<TensorType> bias;
  bool transpose_a = false, transpose_b = false;
  bool add = false;
  bool same_in_parts = false;  // KernelPolicy
};

// Operands: a, b, the bias if there is one, y.
std::unique_ptr<Kernel> make_product(const Product& product);

}  // namespace concord::cpu

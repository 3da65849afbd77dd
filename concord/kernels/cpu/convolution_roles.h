// Which operand of a convolution or of its gradients is what.
#pragma once

#include <algorithm>
#include <vector>

#include "concord/kernels/kernel.h"

namespace concord::cpu {

// Of conv2d, conv2d_backward_data and conv2d_backward_weights: the inputs, then the outputs.
struct ConvolutionRoles {
  explicit ConvolutionRoles(const Signature& s) : operands(s.inputs) {
    operands.insert(operands.end(), s.outputs.begin(), s.outputs.end());
    if (s.node.op == "conv2d") {
      x = 0, w = 1, y = operands.size() - 1;
    } else if (s.node.op == "conv2d_backward_data") {
      y = 0, w = 1, x = 2;
    } else {
      x = 0, y = 1, w = 2;
    }
  }
  const Shape& shape(std::size_t i) const { return operands[i].type.shape; }
  bool is_image(std::size_t i) const { return i == x || i == y; }
  // What is wished for an operand i is layout_of(i).
  template <typename F>
  LayoutWish wish(const Signature& s, F layout_of) const {
    LayoutWish wish;
    for (std::size_t i = 0; i < operands.size(); ++i) {
      (i < s.inputs.size() ? wish.inputs : wish.outputs).push_back(layout_of(i));
    }
    return wish;
  }

  std::vector<Operand> operands;
  std::size_t x, w, y;  // or their gradients; what is left is the bias
};

// Whether the operands lie as wished.
inline bool fulfils(const Signature& signature, const LayoutWish& wish) {
  const auto lie = [](const std::vector<Operand>& operands, const std::vector<Layout>& layouts) {
    return std::ranges::equal(operands, layouts, {}, &Operand::layout);
  };
  return lie(signature.inputs, wish.inputs) && lie(signature.outputs, wish.outputs);
}

}  // namespace concord::cpu

#include "concord/ops/activation.h"

#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

std::vector<TensorType> infer_unary(const Node&, std::span<const TensorType> inputs) {
  expect_inputs(inputs, 1);
  expect_floating(inputs[0], "an activation's input");
  return {inputs[0]};
}

std::vector<TensorType> infer_backward(const Node&, std::span<const TensorType> inputs) {
  expect_inputs(inputs, 2);
  if (inputs[0] != inputs[1]) fail("given {} and {}", to_string(inputs[0]), to_string(inputs[1]));
  return {inputs[0]};
}

// f'(x) = [y > 0], and 0 at x = 0.
const RegisterOp relu_op{{
    .name = "relu",
    .infer = infer_unary,
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      return {
          context.builder.node1("relu_backward", {context.output_gradient(0), context.output(0)})};
    },
}};

const RegisterOp relu_backward_op{{.name = "relu_backward", .infer = infer_backward}};

}  // namespace

ValueId relu(GraphBuilder& builder, ValueId x) { return builder.node1("relu", {x}); }

}  // namespace concord::ops

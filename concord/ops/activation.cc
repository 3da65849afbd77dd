#include "concord/ops/activation.h"

#include "concord/ops/placement_rules.h"
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
  expect_same(inputs[0], inputs[1]);
  return {inputs[0]};
}

// The activation's name and attributes belong to its backward op as well.
ValueId backward(GradientContext& context, ValueId kept) {
  return context.builder.node1(context.node.op + "_backward", {context.output_gradient(0), kept},
                               context.node.attributes);
}

std::vector<ValueId> gradient_from_output(GradientContext& context) {
  return {backward(context, context.output(0))};
}

std::vector<ValueId> gradient_from_input(GradientContext& context) {
  return {backward(context, context.input(0))};
}

// f'(x) = [y > 0], and 0 at x = 0.
const RegisterOp relu_op{{.name = "relu",
                          .infer = infer_unary,
                          .gradient = gradient_from_output,
                          .bf16 = follows_bf16(),
                          .signatures = elementwise}};
const RegisterOp relu_backward_op{{.name = "relu_backward",
                                   .infer = infer_backward,
                                   .bf16 = follows_bf16(2),
                                   .signatures = elementwise}};

// f'(x) = y (1 - y).
const RegisterOp sigmoid_op{{.name = "sigmoid",
                             .infer = infer_unary,
                             .gradient = gradient_from_output,
                             .bf16 = follows_bf16(),
                             .signatures = elementwise}};
const RegisterOp sigmoid_backward_op{{.name = "sigmoid_backward",
                                      .infer = infer_backward,
                                      .bf16 = follows_bf16(2),
                                      .signatures = elementwise}};

// f'(x) = 1 - y^2.
const RegisterOp tanh_op{{.name = "tanh",
                          .infer = infer_unary,
                          .gradient = gradient_from_output,
                          .bf16 = follows_bf16(),
                          .signatures = elementwise}};
const RegisterOp tanh_backward_op{{.name = "tanh_backward",
                                   .infer = infer_backward,
                                   .bf16 = follows_bf16(2),
                                   .signatures = elementwise}};

// f'(x) = s (1 + x (1 - s)) with s = sigmoid(x).
const RegisterOp silu_op{{.name = "silu",
                          .infer = infer_unary,
                          .gradient = gradient_from_input,
                          .bf16 = follows_bf16(),
                          .signatures = elementwise}};
const RegisterOp silu_backward_op{{.name = "silu_backward",
                                   .infer = infer_backward,
                                   .bf16 = follows_bf16(2),
                                   .signatures = elementwise}};

// Exact: f'(x) = P(Z <= x) + x * density of Z at x. Attribute "tanh": 1 for the approximation.
const RegisterOp gelu_op{{.name = "gelu",
                          .infer = infer_unary,
                          .gradient = gradient_from_input,
                          .bf16 = follows_bf16(),
                          .signatures = elementwise}};
const RegisterOp gelu_backward_op{{.name = "gelu_backward",
                                   .infer = infer_backward,
                                   .bf16 = follows_bf16(2),
                                   .signatures = elementwise}};

}  // namespace

ValueId relu(GraphBuilder& builder, ValueId x) { return builder.node1("relu", {x}); }
ValueId sigmoid(GraphBuilder& builder, ValueId x) { return builder.node1("sigmoid", {x}); }
ValueId tanh(GraphBuilder& builder, ValueId x) { return builder.node1("tanh", {x}); }
ValueId silu(GraphBuilder& builder, ValueId x) { return builder.node1("silu", {x}); }

ValueId gelu(GraphBuilder& builder, ValueId x, GeluForm form) {
  return builder.node1("gelu", {x}, {{"tanh", std::int64_t{form == GeluForm::kTanh}}});
}

}  // namespace concord::ops

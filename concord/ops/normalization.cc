#include "concord/ops/normalization.h"

#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

void expect_channels(const TensorType& x, std::span<const TensorType> vectors) {
  expect_floating(x, "the input");
  if (x.shape.rank() != 2 && x.shape.rank() != 4) {
    fail("the input is {}; expected [N, C, H, W] or [N, C]", to_string(x.shape));
  }
  for (const TensorType& vector : vectors) {
    if (vector.shape != Shape{x.shape[1]} || !is_floating(vector.dtype)) {
      fail("a parameter or statistic of {} channels is {}; expected [{}]", x.shape[1],
           to_string(vector), x.shape[1]);
    }
  }
}

// Attributes: epsilon, relu. Inputs: x, gamma, beta. Outputs: y, mean, variance.
const RegisterOp batch_norm_op{{
    .name = "batch_norm",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 3);
      expect_channels(inputs[0], inputs.subspan(1));
      return {inputs[0], inputs[1], inputs[1]};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      CONCORD_CHECK(
          context.output_gradient(1) == kNoValue && context.output_gradient(2) == kNoValue,
          "the loss depends on the statistics of batch norm {}", context.node.name);
      std::vector<ValueId> inputs = {context.output_gradient(0), context.input(0), context.input(1),
                                     context.output(1), context.output(2)};
      if (context.node.attributes.integer("relu") != 0) inputs.push_back(context.output(0));
      return context.builder.node("batch_norm_backward", std::move(inputs),
                                  context.node.attributes);
    },
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
          // Sum, squared deviation, and y from x: two operations each.
          return Cost{6.0 * static_cast<double>(inputs[0].shape.elements())};
        },
}};

// Attributes: epsilon, relu. Inputs: x, gamma, beta, mean, variance.
const RegisterOp batch_norm_inference_op{{
    .name = "batch_norm_inference",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 5);
      expect_channels(inputs[0], inputs.subspan(1));
      return {inputs[0]};
    },
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
          return Cost{2.0 * static_cast<double>(inputs[0].shape.elements())};
        },
}};

// Attributes: epsilon, relu. Inputs: dy, x, gamma, mean, variance and, with relu, y, which tells
// where the activation was cut. Outputs: dx, dgamma, dbeta.
const RegisterOp batch_norm_backward_op{{
    .name = "batch_norm_backward",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      const bool relu = node.attributes.integer("relu") != 0;
      expect_inputs(inputs, relu ? 6 : 5);
      expect_channels(inputs[1], inputs.subspan(2, 3));
      if (inputs[0] != inputs[1] || (relu && inputs[5] != inputs[1])) {
        fail("the output gradient is {}; expected {}", to_string(inputs[0]), to_string(inputs[1]));
      }
      return {inputs[1], inputs[2], inputs[2]};
    },
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
          return Cost{9.0 * static_cast<double>(inputs[1].shape.elements())};
        },
}};

Attributes attributes_of(double epsilon, bool relu) {
  return {{"epsilon", epsilon}, {"relu", std::int64_t{relu}}};
}

}  // namespace

BatchNorm batch_norm(GraphBuilder& builder, ValueId x, ValueId gamma, ValueId beta, double epsilon,
                     bool relu) {
  const std::vector<ValueId> outputs =
      builder.node("batch_norm", {x, gamma, beta}, attributes_of(epsilon, relu));
  return {outputs[0], outputs[1], outputs[2]};
}

ValueId batch_norm_inference(GraphBuilder& builder, ValueId x, ValueId gamma, ValueId beta,
                             ValueId mean, ValueId variance, double epsilon, bool relu) {
  return builder.node1("batch_norm_inference", {x, gamma, beta, mean, variance},
                       attributes_of(epsilon, relu));
}

}  // namespace concord::ops

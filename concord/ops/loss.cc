#include "concord/ops/loss.h"

#include <string_view>

#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"
#include "concord/ops/step.h"

namespace concord::ops {
namespace {

// Of logits x and targets t, element by element: l = max(x, 0) - x t + ln(1 + e^-|x|), which is the
// binary cross-entropy. dL/dx = dL/dl (sigmoid(x) - t) and dL/dt = -dL/dl x.
const RegisterOp binary_cross_entropy_op{{
    .name = "binary_cross_entropy_with_logits",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      expect_floating(inputs[0], "the logits");
      expect_same(inputs[0], inputs[1]);
      return {inputs[0]};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      GraphBuilder& b = context.builder;
      const ValueId dl = context.output_gradient(0), x = context.input(0);
      return {mul(b, dl, sub(b, sigmoid(b, x), context.input(1))), neg(b, mul(b, dl, x))};
    },
    .signatures = elementwise,
}};

void expect_alike(GraphBuilder& builder, std::string_view loss, ValueId prediction,
                  ValueId target) {
  const TensorType type = builder.type(prediction);
  if (type != builder.type(target) || type.shape.rank() < 1 || type.shape.elements() == 0) {
    fail("{}: prediction {} and target {}: expected [N, ...] of one type", loss, to_string(type),
         to_string(builder.type(target)));
  }
}

// sum_i mean_k x_ik.
ValueId sum_of_means(GraphBuilder& builder, ValueId x) {
  const Shape shape = builder.shape(x);
  const ValueId sum = sum_to_shape(builder, x, Shape{});
  const std::int64_t of_one_sample = shape.elements() / shape[0];
  return scale(builder, sum, 1.0 / static_cast<double>(of_one_sample));
}

// weight * sum_i mean_k losses_ik.
ValueId weighted_sum(GraphBuilder& builder, ValueId losses, ValueId weight) {
  return mul(builder, sum_of_means(builder, losses), weight);
}

}  // namespace

ValueId mean_squared_error(GraphBuilder& builder, ValueId prediction, ValueId target,
                           ValueId weight) {
  expect_alike(builder, "mean_squared_error", prediction, target);
  return weighted_sum(builder, square(builder, sub(builder, prediction, target)), weight);
}

ValueId l1_loss(GraphBuilder& builder, ValueId prediction, ValueId target, ValueId weight) {
  expect_alike(builder, "l1_loss", prediction, target);
  return weighted_sum(builder, abs(builder, sub(builder, prediction, target)), weight);
}

// With c = d clamped to [-delta, delta], both cases are c (d - c / 2).
ValueId huber_loss(GraphBuilder& builder, ValueId prediction, ValueId target, ValueId weight,
                   double delta) {
  expect_alike(builder, "huber_loss", prediction, target);
  if (!(delta > 0)) fail("huber_loss: delta = {}: expected a positive number", delta);
  const ValueId d = sub(builder, prediction, target);
  const ValueId c = clamp(builder, d, -delta, delta);
  const ValueId rest = sub(builder, d, scale(builder, c, 0.5));
  return weighted_sum(builder, mul(builder, c, rest), weight);
}

ValueId binary_cross_entropy_with_logits(GraphBuilder& builder, ValueId logits, ValueId targets,
                                         ValueId weight) {
  expect_alike(builder, "binary_cross_entropy_with_logits", logits, targets);
  const ValueId losses = builder.node1("binary_cross_entropy_with_logits", {logits, targets});
  return weighted_sum(builder, losses, weight);
}

ValueId count_correct_binary(GraphBuilder& builder, ValueId logits, ValueId targets) {
  expect_alike(builder, "count_correct_binary", logits, targets);
  const auto constant_like = [&](double value) {
    return constant(builder, {builder.type(logits).dtype, {}}, value);
  };
  const auto is_at_most_0 = [&](ValueId x) {
    return equal(builder, relu(builder, x), constant_like(0));
  };
  const ValueId above_half = sub(builder, targets, constant_like(0.5));
  return sum_of_means(builder, equal(builder, is_at_most_0(logits), is_at_most_0(above_half)));
}

}  // namespace concord::ops

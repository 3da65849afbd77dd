#include "concord/ops/normalization.h"

#include "concord/ops/arithmetic.h"
#include "concord/ops/normalization_placement.h"
#include "concord/ops/rules.h"
#include "concord/ops/step.h"

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

// Statistics are for the backward op and, in batch norm, for running statistics.
void expect_statistics_unused(const GradientContext& context) {
  for (std::size_t i = 1; i < context.output_gradients.size(); ++i) {
    CONCORD_CHECK(context.output_gradient(i) == kNoValue,
                  "the loss depends on the statistics of {} {}", context.node.op,
                  context.node.name);
  }
}

// Attributes: epsilon, relu. Inputs: x, gamma, beta and, with relu, perhaps an addend. Outputs: y,
// mean, variance.
const RegisterOp batch_norm_op{{
    .name = "batch_norm",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      const bool adds = inputs.size() == 4 && node.attributes.integer("relu") != 0;
      expect_inputs(inputs, adds ? 4 : 3);
      expect_channels(inputs[0], inputs.subspan(1, 2));
      if (adds && inputs[3] != inputs[0]) {
        fail("the addend is {}; expected {}", to_string(inputs[3]), to_string(inputs[0]));
      }
      return {inputs[0], inputs[1], inputs[1]};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      expect_statistics_unused(context);
      std::vector<ValueId> inputs = {context.output_gradient(0), context.input(0), context.input(1),
                                     context.output(1), context.output(2)};
      if (context.node.attributes.integer("relu") != 0) inputs.push_back(context.output(0));
      Attributes attributes = context.node.attributes;
      attributes.set("adds", std::int64_t{context.node.inputs.size() == 4});
      return context.builder.node("batch_norm_backward", std::move(inputs), std::move(attributes));
    },
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
          // Sum, squared deviation, and y from x: two operations each.
          return Cost{6.0 * static_cast<double>(inputs[0].shape.elements())};
        },
    .bf16 = {.use = Bf16Form::Use::kFollows, .inputs = 0b1001},
    .signatures = placed_batch_norm,
    .localize = localize_batch_norm,
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
    .bf16 = follows_bf16(),
    .signatures = placed_by_channel,
}};

// Attributes: epsilon, relu, adds. Inputs: dy, x, gamma, mean, variance and, with relu, y, which
// tells where the activation was cut. Outputs: dx, dgamma, dbeta and, where the op adds something,
// the gradient of that.
const RegisterOp batch_norm_backward_op{{
    .name = "batch_norm_backward",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      const bool relu = node.attributes.integer("relu") != 0;
      expect_inputs(inputs, relu ? 6 : 5);
      expect_channels(inputs[1], inputs.subspan(2, 3));
      if (inputs[0] != inputs[1] || (relu && inputs[5] != inputs[1])) {
        fail("the output gradient is {}; expected {}", to_string(inputs[0]), to_string(inputs[1]));
      }
      if (node.attributes.integer("adds") == 0) return {inputs[1], inputs[2], inputs[2]};
      return {inputs[1], inputs[2], inputs[2], inputs[1]};
    },
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
          return Cost{9.0 * static_cast<double>(inputs[1].shape.elements())};
        },
    .bf16 = {.use = Bf16Form::Use::kFollows, .inputs = 0b100011},
    .signatures = placed_batch_norm_backward,
    .localize = localize_batch_norm_backward,
}};

// Operations for each element of x, the first input of a forward op and the second of a backward
// one.
template <int operations>
Cost per_element(const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
  return {operations * static_cast<double>(inputs[0].shape.elements())};
}

TensorType channels_of(const TensorType& x) { return {DType::kF32, {x.shape[1]}}; }

// Inputs: x and perhaps mean. Output: [C], the sum of x, or of its squared distances from the mean.
const RegisterOp channel_sum_op{{
    .name = "channel_sum",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, inputs.size() == 2 ? 2 : 1);
      expect_channels(inputs[0], inputs.subspan(1));
      return {channels_of(inputs[0])};
    },
    .cost = per_element<2>,
    .bf16 = {.use = Bf16Form::Use::kFollows, .inputs = 0b1},
    .signatures = placed_channel_sums,
}};

// Attributes: epsilon. Inputs: x, gamma, beta, mean, variance, share. Output: y. The statistics
// count as functions of the x of all leaves, so that all of the gradient goes to x.
const RegisterOp batch_norm_over_leaves_op{{
    .name = "batch_norm_over_leaves",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 6);
      expect_channels(inputs[0], inputs.subspan(1, 4));
      if (inputs[5] != TensorType{DType::kF32, {}}) {
        fail("the share of an element is {}; expected f32[]", to_string(inputs[5]));
      }
      return {inputs[0]};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      GraphBuilder& builder = context.builder;
      const ValueId dy = context.output_gradient(0), x = context.input(0);
      const ValueId mean = context.input(3), variance = context.input(4);
      const std::vector<ValueId> sums = builder.node(
          "batch_norm_over_leaves_sums", {dy, x, mean, variance}, context.node.attributes);
      const auto mean_of = [&](ValueId sum) {
        return mul(builder, leaf_total(builder, sum), context.input(5));
      };
      const ValueId mean_dgamma = mean_of(sums[0]), mean_dbeta = mean_of(sums[1]);
      const ValueId dx =
          builder.node1("batch_norm_over_leaves_backward",
                        {dy, x, context.input(1), mean, variance, mean_dgamma, mean_dbeta},
                        context.node.attributes);
      return {dx, sums[0], sums[1], kNoValue, kNoValue, kNoValue};
    },
    .cost = per_element<2>,
    .bf16 = {.use = Bf16Form::Use::kFollows, .inputs = 0b1},
    .signatures = placed_by_channel,
}};

// Attributes: epsilon. Inputs: dy, x, mean, variance. Outputs: dgamma, dbeta, of this leaf.
const RegisterOp batch_norm_over_leaves_sums_op{{
    .name = "batch_norm_over_leaves_sums",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 4);
      expect_channels(inputs[1], inputs.subspan(2));
      if (inputs[0] != inputs[1]) {
        fail("the output gradient is {}; expected {}", to_string(inputs[0]), to_string(inputs[1]));
      }
      return {channels_of(inputs[1]), channels_of(inputs[1])};
    },
    .cost = per_element<4>,
    .bf16 = {.use = Bf16Form::Use::kFollows, .inputs = 0b11},
    .signatures = placed_channel_sums,
}};

// Attributes: epsilon. Inputs: dy, x, gamma, mean, variance, and dgamma and dbeta of all leaves,
// times the share of an element. Output: dx.
const RegisterOp batch_norm_over_leaves_backward_op{{
    .name = "batch_norm_over_leaves_backward",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 7);
      expect_channels(inputs[1], inputs.subspan(2));
      if (inputs[0] != inputs[1]) {
        fail("the output gradient is {}; expected {}", to_string(inputs[0]), to_string(inputs[1]));
      }
      return {inputs[1]};
    },
    .cost = per_element<5>,
    .bf16 = {.use = Bf16Form::Use::kFollows, .inputs = 0b11},
    .signatures = placed_by_channel,
}};

// Throws Error unless each of `parameters` is f32 [channels].
void expect_parameters(std::int64_t channels, std::span<const TensorType> parameters) {
  const TensorType expected{DType::kF32, {channels}};
  for (const TensorType& parameter : parameters) {
    if (parameter != expected) {
      fail("a parameter is {}; {} channels need {}", to_string(parameter), channels,
           to_string(expected));
    }
  }
}

void expect_gradient_of(const TensorType& x, const TensorType& dy) {
  if (dy != x) fail("the output gradient is {}; expected {}", to_string(dy), to_string(x));
}

// One statistic for each row of x, which is [..., C].
TensorType rows_of(const TensorType& x) {
  expect_floating(x, "the input");
  if (x.shape.rank() < 1 || x.shape[-1] < 1) {
    fail("the input is {}; expected [..., C] with at least one channel", to_string(x.shape));
  }
  std::vector<std::int64_t> rows = x.shape.dims();
  rows.pop_back();
  return {DType::kF32, Shape(std::move(rows))};
}

// One statistic for each group of each sample of x, which is [N, C, ...].
TensorType groups_of(const TensorType& x, std::int64_t groups) {
  expect_floating(x, "the input");
  if (x.shape.rank() < 2 || groups < 1 || x.shape[1] % groups != 0 || x.shape.elements() == 0) {
    fail("{} groups of {}; expected [N, C, ...], not empty, with equal groups of channels", groups,
         to_string(x.shape));
  }
  return {DType::kF32, {x.shape[0], groups}};
}

// dL/d(inputs) from the op's own backward op: of dy, x, gamma and the statistics.
std::vector<ValueId> gradient_from_statistics(GradientContext& context) {
  expect_statistics_unused(context);
  std::vector<ValueId> inputs = {context.output_gradient(0), context.input(0), context.input(1)};
  inputs.insert(inputs.end(), context.node.outputs.begin() + 1, context.node.outputs.end());
  return context.builder.node(context.node.op + "_backward", std::move(inputs),
                              context.node.attributes);
}

// Attributes: epsilon. Inputs: x, gamma, beta. Outputs: y, mean, 1 / sqrt(variance + epsilon).
const RegisterOp layer_norm_op{{
    .name = "layer_norm",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 3);
      const TensorType rows = rows_of(inputs[0]);
      expect_parameters(inputs[0].shape[-1], inputs.subspan(1));
      return {inputs[0], rows, rows};
    },
    .gradient = gradient_from_statistics,
    .cost = per_element<6>,
    .bf16 = follows_bf16(),
    .signatures = placed_row_norm,
}};

// Inputs: dy, x, gamma, the statistics. Outputs: dx, dgamma, dbeta.
const RegisterOp layer_norm_backward_op{{
    .name = "layer_norm_backward",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 5);
      expect_gradient_of(inputs[1], inputs[0]);
      return {inputs[1], inputs[2], inputs[2]};
    },
    .cost = per_element<9>,
    .bf16 = follows_bf16(2),
    .signatures = placed_row_norm_backward,
}};

// Attributes: epsilon. Inputs: x, gamma. Outputs: y, 1 / sqrt(mean of x^2 + epsilon).
const RegisterOp rms_norm_op{{
    .name = "rms_norm",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      const TensorType rows = rows_of(inputs[0]);
      expect_parameters(inputs[0].shape[-1], inputs.subspan(1));
      return {inputs[0], rows};
    },
    .gradient = gradient_from_statistics,
    .cost = per_element<4>,
    .bf16 = follows_bf16(),
    .signatures = placed_row_norm,
}};

// Inputs: dy, x, gamma, the statistic. Outputs: dx, dgamma.
const RegisterOp rms_norm_backward_op{{
    .name = "rms_norm_backward",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 4);
      expect_gradient_of(inputs[1], inputs[0]);
      return {inputs[1], inputs[2]};
    },
    .cost = per_element<7>,
    .bf16 = follows_bf16(2),
    .signatures = placed_row_norm_backward,
}};

// Attributes: epsilon, groups. Inputs: x, gamma, beta. Outputs: y, mean, 1 / sqrt(variance +
// epsilon).
const RegisterOp group_norm_op{{
    .name = "group_norm",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 3);
      const TensorType groups = groups_of(inputs[0], node.attributes.integer("groups"));
      expect_parameters(inputs[0].shape[1], inputs.subspan(1));
      return {inputs[0], groups, groups};
    },
    .gradient = gradient_from_statistics,
    .cost = per_element<6>,
    .bf16 = follows_bf16(),
    .signatures = placed_group_norm,
    .localize = localize_group_norm,
}};

// Inputs: dy, x, gamma, the statistics. Outputs: dx, dgamma, dbeta.
const RegisterOp group_norm_backward_op{{
    .name = "group_norm_backward",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 5);
      expect_gradient_of(inputs[1], inputs[0]);
      return {inputs[1], inputs[2], inputs[2]};
    },
    .cost = per_element<9>,
    .bf16 = follows_bf16(2),
    .signatures = placed_group_norm_backward,
    .localize = localize_group_norm,
}};

Attributes attributes_of(double epsilon, bool relu) {
  return {{"epsilon", epsilon}, {"relu", std::int64_t{relu}}};
}

}  // namespace

BatchNorm batch_norm(GraphBuilder& builder, ValueId x, ValueId gamma, ValueId beta, double epsilon,
                     bool relu, ValueId addend) {
  std::vector<ValueId> inputs = {x, gamma, beta};
  if (addend != kNoValue) inputs.push_back(addend);
  const std::vector<ValueId> outputs =
      builder.node("batch_norm", std::move(inputs), attributes_of(epsilon, relu));
  return {outputs[0], outputs[1], outputs[2]};
}

ValueId batch_norm_inference(GraphBuilder& builder, ValueId x, ValueId gamma, ValueId beta,
                             ValueId mean, ValueId variance, double epsilon, bool relu) {
  return builder.node1("batch_norm_inference", {x, gamma, beta, mean, variance},
                       attributes_of(epsilon, relu));
}

BatchNormOverLeaves batch_norm_over_leaves(GraphBuilder& builder, ValueId x, ValueId gamma,
                                           ValueId beta, ValueId share, double epsilon) {
  const auto mean_of = [&](ValueId sum) { return mul(builder, leaf_total(builder, sum), share); };
  const ValueId sum = builder.node1("channel_sum", {x});
  const ValueId mean = mean_of(sum);
  const ValueId squared_errors = builder.node1("channel_sum", {x, mean});
  const ValueId variance = mean_of(squared_errors);
  const ValueId y = builder.node1("batch_norm_over_leaves", {x, gamma, beta, mean, variance, share},
                                  {{"epsilon", epsilon}});
  return {y, sum, squared_errors};
}

ValueId layer_norm(GraphBuilder& builder, ValueId x, ValueId gamma, ValueId beta, double epsilon) {
  return builder.node("layer_norm", {x, gamma, beta}, {{"epsilon", epsilon}})[0];
}

ValueId rms_norm(GraphBuilder& builder, ValueId x, ValueId gamma, double epsilon) {
  return builder.node("rms_norm", {x, gamma}, {{"epsilon", epsilon}})[0];
}

ValueId group_norm(GraphBuilder& builder, ValueId x, std::int64_t groups, ValueId gamma,
                   ValueId beta, double epsilon) {
  return builder.node("group_norm", {x, gamma, beta},
                      {{"epsilon", epsilon}, {"groups", groups}})[0];
}

}  // namespace concord::ops

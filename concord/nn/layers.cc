#include "concord/nn/layers.h"

#include <cmath>

#include "concord/base/error.h"
#include "concord/nn/initialize.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/dropout.h"
#include "concord/ops/matmul.h"
#include "concord/ops/normalization.h"
#include "concord/ops/optimizer.h"
#include "concord/ops/pooling.h"
#include "concord/ops/shape_ops.h"
#include "concord/ops/step.h"

namespace concord::nn {
namespace {

using Role = State::Role;

struct Weights {
  ValueId weight;
  ValueId bias;  // or kNoValue
};

struct Start {
  Initializer weight, bias;
};

// `fan_in` and `fan_out` see Initialization.
Start start_of(Initialization initialization, std::int64_t fan_in, std::int64_t fan_out) {
  switch (initialization) {
    case Initialization::kFanIn:
      break;
    case Initialization::kFanOut:
      return {{Initializer::Kind::kNormal, std::sqrt(2.0 / static_cast<double>(fan_out))}, {}};
    case Initialization::kSmallNormal:
      return {{Initializer::Kind::kNormal, 0.01}, {}};
  }
  const Initializer uniform{Initializer::Kind::kUniform,
                            1.0 / std::sqrt(static_cast<double>(fan_in))};
  return {uniform, uniform};
}

// `shape` is [outputs, ...].
Weights make_weights(GraphBuilder& builder, const Shape& shape, bool bias, const Start& start) {
  if (shape[0] < 1)
    fail("layer {}: {} outputs; expected at least 1", builder.scope_name(), shape[0]);
  Weights weights{builder.state("weight", {DType::kF32, shape}, Role::kParameter, start.weight),
                  kNoValue};
  if (bias) {
    weights.bias = builder.state("bias", {DType::kF32, {shape[0]}}, Role::kParameter, start.bias,
                                 /*decay=*/false);
  }
  return weights;
}

void expect_rank(const GraphBuilder& builder, ValueId x, int low, int high,
                 std::string_view expected) {
  const Shape shape = builder.shape(x);
  if (shape.rank() < low || shape.rank() > high) {
    fail("layer {}: given {}; expected {}", builder.scope_name(), to_string(shape), expected);
  }
}

// The sum over the batch of a microbatch's statistic, weighted by the microbatch's share of it.
ValueId batch_average(GraphBuilder& builder, ValueId statistic, ValueId share) {
  return ops::leaf_sum(builder, ops::mul(builder, statistic, share));
}

// A parameter for each of the last dim's channels, without weight decay.
ValueId channel_state(GraphBuilder& builder, std::string_view name, ValueId x, double start) {
  return builder.state(name, {DType::kF32, {builder.shape(x)[-1]}}, Role::kParameter,
                       {Initializer::Kind::kConstant, start}, /*decay=*/false);
}

}  // namespace

ValueId linear(GraphBuilder& builder, std::string_view name, ValueId x, std::int64_t out_features,
               bool bias, Initialization initialization) {
  const auto scope = builder.scope(name);
  expect_rank(builder, x, 2, 2, "[samples, features]");
  const std::int64_t in_features = builder.shape(x)[1];
  const Weights w = make_weights(builder, {out_features, in_features}, bias,
                                 start_of(initialization, in_features, out_features));
  return ops::matmul(builder, x, w.weight, {.transpose_b = true}, w.bias);
}

ValueId linear(GraphBuilder& builder, std::string_view name, ValueId x, std::int64_t out_features,
               const Initializer& weight) {
  const auto scope = builder.scope(name);
  expect_rank(builder, x, 2, 2, "[samples, features]");
  const Weights w =
      make_weights(builder, {out_features, builder.shape(x)[1]}, /*bias=*/true, {weight, {}});
  return ops::matmul(builder, x, w.weight, {.transpose_b = true}, w.bias);
}

ValueId layer_norm(GraphBuilder& builder, std::string_view name, ValueId x, double epsilon) {
  const auto scope = builder.scope(name);
  const ValueId weight = channel_state(builder, "weight", x, 1);
  const ValueId bias = channel_state(builder, "bias", x, 0);
  return ops::layer_norm(builder, x, weight, bias, epsilon);
}

ValueId rms_norm(GraphBuilder& builder, std::string_view name, ValueId x, double epsilon) {
  const auto scope = builder.scope(name);
  return ops::rms_norm(builder, x, channel_state(builder, "weight", x, 1), epsilon);
}

ValueId conv2d(GraphBuilder& builder, std::string_view name, ValueId x, std::int64_t out_channels,
               std::int64_t kernel, const ops::Conv2dOptions& options, bool bias,
               Initialization initialization) {
  const auto scope = builder.scope(name);
  expect_rank(builder, x, 4, 4, "images [samples, channels, height, width]");
  if (options.groups < 1 || builder.shape(x)[1] % options.groups != 0) {
    fail("layer {}: {} channels do not fall into {} groups", builder.scope_name(),
         builder.shape(x)[1], options.groups);
  }
  const Shape shape{out_channels, builder.shape(x)[1] / options.groups, kernel, kernel};
  const std::int64_t area = kernel * kernel;
  const Weights w = make_weights(builder, shape, bias,
                                 start_of(initialization, shape[1] * area, out_channels * area));
  return ops::conv2d(builder, x, w.weight, options, w.bias);
}

ValueId batch_norm(GraphBuilder& builder, std::string_view name, ValueId x,
                   const StepContext& context, const BatchNormOptions& options) {
  const auto scope = builder.scope(name);
  expect_rank(builder, x, 2, 4, "[samples, channels] or images [samples, channels, height, width]");
  const Shape shape = builder.shape(x);
  const TensorType per_channel{DType::kF32, {shape[1]}};
  const auto make = [&](std::string_view state, Role role, double start) {
    return builder.state(state, per_channel, role, {Initializer::Kind::kConstant, start},
                         /*decay=*/false);
  };
  const ValueId weight = make("weight", Role::kParameter, options.zero_scale ? 0 : 1);
  const ValueId bias = make("bias", Role::kParameter, 0);
  const ValueId running_mean = make("running_mean", Role::kStatistic, 0);
  const ValueId running_var = make("running_var", Role::kStatistic, 1);
  if (context.mode == Mode::kEvaluate) {
    return ops::batch_norm_inference(builder, x, weight, bias, running_mean, running_var,
                                     options.epsilon);
  }

  const auto move = [&](ValueId running, ValueId statistic) {
    builder.set_next(running, ops::moving_average(builder, running, statistic, options.momentum));
  };
  if (context.batch_norm_over_leaves) {
    const auto positions = static_cast<double>(shape.elements() / (shape[0] * shape[1]));
    const ValueId share = ops::scale(builder, context.batch_weight, 1 / positions);  // 1 / n
    const auto norm = ops::batch_norm_over_leaves(builder, x, weight, bias, share, options.epsilon);
    move(running_mean, ops::mul(builder, ops::leaf_sum(builder, norm.sum), share));
    // 1 / (n - 1) = (1 / n) / (1 - 1 / n); of a single element nothing is divided.
    const ValueId one = ops::constant(builder, builder.type(share), 1);
    const ValueId rest = ops::clamp(builder, ops::sub(builder, one, share), 0.5, 1);
    move(running_var, ops::mul(builder, ops::leaf_sum(builder, norm.squared_errors),
                               ops::div(builder, share, rest)));
    return norm.y;
  }

  const ops::BatchNorm norm = ops::batch_norm(builder, x, weight, bias, options.epsilon);
  const std::int64_t elements = shape.elements() / shape[1];
  const auto n = static_cast<double>(elements);
  const double unbiased = n > 1 ? n / (n - 1) : 1;
  const auto samples = static_cast<double>(shape[0]);
  const ValueId share = ops::scale(builder, context.batch_weight, samples);
  const ValueId unbiased_share = ops::scale(builder, context.batch_weight, samples * unbiased);
  move(running_mean, batch_average(builder, norm.mean, share));
  move(running_var, batch_average(builder, norm.variance, unbiased_share));
  return norm.y;
}

ValueId activation(GraphBuilder& builder, std::string_view kind, ValueId x) {
  if (kind == "relu") return ops::relu(builder, x);
  if (kind == "gelu") return ops::gelu(builder, x);
  if (kind == "silu") return ops::silu(builder, x);
  if (kind == "tanh") return ops::tanh(builder, x);
  if (kind == "sigmoid") return ops::sigmoid(builder, x);
  fail("there is no activation \"{}\"; expected relu, gelu, silu, tanh or sigmoid", kind);
}

ValueId dropout(GraphBuilder& builder, std::string_view name, ValueId x, double rate,
                const StepContext& context) {
  const auto scope = builder.scope(name);
  if (context.mode == Mode::kEvaluate) return x;
  return ops::dropout(
      builder, x, context.position,
      {.rate = rate, .seed = context.seed, .stream = random_stream(builder.scope_name())});
}

ValueId flatten(GraphBuilder& builder, ValueId x) {
  const Shape shape = builder.shape(x);
  if (shape.rank() == 2) return x;
  return ops::reshape(builder, x, {shape[0], shape.elements() / shape[0]});
}

ValueId max_pool2d(GraphBuilder& builder, ValueId x, std::int64_t kernel) {
  return ops::max_pool2d(builder, x, {.kernel = {kernel, kernel}, .stride = {kernel, kernel}});
}

}  // namespace concord::nn

// Layers: ops together with the states they own, as graph builders.
//
// A layer named "conv1" inside the scope "layer1.0" owns the states "layer1.0.conv1.weight",
// "layer1.0.conv1.bias" and so on: PyTorch's names and shapes, so that weights interchange. Weight
// decay applies to weight matrices and filters alone, not to biases and norms (State::decay).
// Errors: a layer that does not fit its input throws Error naming the layer.
// Thread safety: that of the builder.
#pragma once

#include <cstdint>
#include <string_view>

#include "concord/graph/builder.h"
#include "concord/ops/convolution.h"

namespace concord::nn {

enum class Mode { kTrain, kEvaluate };

// What the layers of one step share.
struct StepContext {
  Mode mode = Mode::kTrain;
  std::uint64_t seed = 0;           // the job's, for dropout
  ValueId batch_weight = kNoValue;  // training: f32 [], 1 / samples of the whole batch
  ValueId position = kNoValue;      // training: i64 [2], step and first sample (ops/dropout.h)
  // Continuing texts: how many positions the model knows, and i64 [], that of the first token
  // given.
  std::int64_t positions = 0;
  ValueId first_position = kNoValue;
  ValueId rows = kNoValue;  // of tokens: i32, those whose logits are wanted; kNoValue: all
  // Training: batch norm takes its statistics over the whole batch of the step.
  bool batch_norm_over_leaves = false;
};

// How weights w and biases b start. A unit has fan_in inputs; fan_out counts the units that one
// input reaches.
enum class Initialization {
  // w and b uniform in +-1 / sqrt(fan_in): PyTorch's default, which it writes as He initialization
  // (kaiming_uniform) with a = sqrt(5).
  kFanIn,
  // w normal with variance 2 / fan_out, b zero (He, Zhang, Ren, Sun 2015, equation 14): the
  // residual and VGG networks of torchvision.
  kFanOut,
  // w normal with deviation 0.01, b zero: the classifiers of VGG.
  kSmallNormal,
};

// y = x w^T + b. x is [N, I], y [N, out_features]; states weight [O, I] and, with `bias`, bias [O].
ValueId linear(GraphBuilder& builder, std::string_view name, ValueId x, std::int64_t out_features,
               bool bias = true, Initialization initialization = Initialization::kFanIn);

// The same with a weight that starts as `weight` says, and a bias that starts at zero.
ValueId linear(GraphBuilder& builder, std::string_view name, ValueId x, std::int64_t out_features,
               const Initializer& weight);

// Layer normalization of each row of [..., C] (ops/normalization.h); states weight and bias, [C].
ValueId layer_norm(GraphBuilder& builder, std::string_view name, ValueId x, double epsilon = 1e-5);

// RMS normalization of each row of [..., C] (ops/normalization.h); state weight, [C].
ValueId rms_norm(GraphBuilder& builder, std::string_view name, ValueId x, double epsilon = 1e-5);

// A convolution with square filters (ops/convolution.h); states weight [O, I/groups, K, K] and,
// with `bias`, bias [O].
ValueId conv2d(GraphBuilder& builder, std::string_view name, ValueId x, std::int64_t out_channels,
               std::int64_t kernel, const ops::Conv2dOptions& options = {}, bool bias = true,
               Initialization initialization = Initialization::kFanIn);

struct BatchNormOptions {
  double epsilon = 1e-5;
  double momentum = 0.1;    // the share of the new statistics in the running ones
  bool zero_scale = false;  // start with weight 0 in place of 1
};

// Batch normalization of [N, C, H, W] or [N, C] (ops/normalization.h); states weight, bias,
// running_mean and running_var, each [C].
//
// Training normalizes each microbatch with its own statistics. The running statistics move, once a
// step, towards the mean of the microbatches' statistics, each weighted by its samples; as in
// PyTorch the variance is the unbiased one (times n / (n - 1), n = N H W of the microbatch; as it
// is for n = 1). With context.batch_norm_over_leaves all leaves have the same statistics, those of
// the whole batch (ops/normalization.h), and n = N H W of that. Evaluation normalizes with the
// running statistics.
ValueId batch_norm(GraphBuilder& builder, std::string_view name, ValueId x,
                   const StepContext& context, const BatchNormOptions& options = {});

// By name: relu, gelu, silu, tanh or sigmoid. Throws Error for another one.
ValueId activation(GraphBuilder& builder, std::string_view kind, ValueId x);

// Dropout while training, x itself in evaluation. Its draws are keyed by its name and scope.
ValueId dropout(GraphBuilder& builder, std::string_view name, ValueId x, double rate,
                const StepContext& context);

// [N, ...] -> [N, features].
ValueId flatten(GraphBuilder& builder, ValueId x);

// Square windows of side `kernel` that do not overlap.
ValueId max_pool2d(GraphBuilder& builder, ValueId x, std::int64_t kernel);

}  // namespace concord::nn

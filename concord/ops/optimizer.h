// Optimizer updates. One node updates a whole group of parameters, so that its kernel is one pass
// over memory. Every list holds f32 values, one for each parameter and of its shape, in one order;
// scalars are f32 [] unless said. The outputs may lie over the inputs they replace. All go number
// by number, so that ranks can share an update: norms are nodes of their own. None is
// differentiable.
#pragma once

#include <vector>

#include "concord/graph/builder.h"

namespace concord::ops {

struct SgdOptions {
  double momentum = 0;  // 0: no momenta are kept
  bool nesterov = false;
  double weight_decay = 0;
  bool decoupled = false;  // decay beside the gradient (Loshchilov and Hutter 2019)
};

struct SgdUpdate {
  std::vector<ValueId> parameters;
  std::vector<ValueId> momenta;  // empty where momentum is 0
};

// With learning rate n, g = gradient_scale * gradient, momentum u and weight decay d:
//   coupled:   g <- g + d p          decoupled: p <- p (1 - n d)
//   momentum:  m <- u m + g          step: m, or g + u m for Nesterov; g without momentum
//   p <- p - n step
// This is PyTorch's SGD with dampening 0; momenta start at zero.
SgdUpdate sgd_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                     const std::vector<ValueId>& parameters, const std::vector<ValueId>& gradients,
                     const std::vector<ValueId>& momenta, const SgdOptions& options);

struct AdamOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  bool decoupled = false;  // AdamW
};

struct AdamUpdate {
  std::vector<ValueId> parameters;
  std::vector<ValueId> first_moments;
  std::vector<ValueId> second_moments;
};

// Adam (Kingma and Ba 2015, algorithm 1) or, decoupled, AdamW (Loshchilov and Hutter 2019). With
// t = step_count, 1 in the first step, and g, n, d as above:
//   coupled:   g <- g + d p          decoupled: p <- p (1 - n d)
//   m <- beta1 m + (1 - beta1) g     v <- beta2 v + (1 - beta2) g^2
//   p <- p - n / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + epsilon)
AdamUpdate adam_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                       ValueId step_count, const std::vector<ValueId>& parameters,
                       const std::vector<ValueId>& gradients,
                       const std::vector<ValueId>& first_moments,
                       const std::vector<ValueId>& second_moments, const AdamOptions& options);

struct LionOptions {
  double beta1 = 0.9;
  double beta2 = 0.99;
  double weight_decay = 0;  // decoupled
};

struct LionUpdate {
  std::vector<ValueId> parameters;
  std::vector<ValueId> momenta;
};

// Lion (Chen et al. 2023, program 1), whose steps are signs, 0 where the sum is 0:
//   p <- p (1 - n d) - n sign(beta1 m + (1 - beta1) g)
//   m <- beta2 m + (1 - beta2) g
LionUpdate lion_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                       const std::vector<ValueId>& parameters,
                       const std::vector<ValueId>& gradients, const std::vector<ValueId>& momenta,
                       const LionOptions& options);

struct RmspropOptions {
  double alpha = 0.99;
  double epsilon = 1e-8;
  double momentum = 0;  // 0: no momenta are kept
  double weight_decay = 0;
  bool decoupled = false;
};

struct RmspropUpdate {
  std::vector<ValueId> parameters;
  std::vector<ValueId> square_averages;
  std::vector<ValueId> momenta;  // empty where momentum is 0
};

// RMSProp (Hinton, Srivastava, Swersky 2012, lecture 6e), in PyTorch's form, not centered. Decay as
// for sgd_update, then:
//   v <- alpha v + (1 - alpha) g^2      step: g / (sqrt(v) + epsilon)
//   momentum:  b <- u b + step          step: b
//   p <- p - n step
RmspropUpdate rmsprop_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                             const std::vector<ValueId>& parameters,
                             const std::vector<ValueId>& gradients,
                             const std::vector<ValueId>& square_averages,
                             const std::vector<ValueId>& momenta, const RmspropOptions& options);

struct AdagradOptions {
  double epsilon = 1e-10;
  double weight_decay = 0;
  bool decoupled = false;
};

struct AdagradUpdate {
  std::vector<ValueId> parameters;
  std::vector<ValueId> square_sums;
};

// Adagrad (Duchi, Hazan, Singer 2011, the diagonal form of figure 1). Decay as for sgd_update,
// then:
//   v <- v + g^2                        p <- p - n g / (sqrt(v) + epsilon)
AdagradUpdate adagrad_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                             const std::vector<ValueId>& parameters,
                             const std::vector<ValueId>& gradients,
                             const std::vector<ValueId>& square_sums,
                             const AdagradOptions& options);

struct TrustRatioOptions {
  double coefficient = 1;
  double weight_decay = 0;
};

// The size of a parameter p beside that of its step s, which is taken `step_scale` times, from
// sums_of_squares of both. With coefficient e and weight decay d, an f32 scalar:
//   e |p| / (|step_scale| |s| + d |p|), or 1 where |p| or step_scale |s| is 0
ValueId trust_ratio(GraphBuilder& builder, ValueId sums_of_squares, ValueId step_scale,
                    const TrustRatioOptions& options);

struct LarsOptions {
  double momentum = 0.9;  // 0: no momenta are kept
  double weight_decay = 0;
};

// LARS (You, Gitman, Ginsburg 2017, algorithm 1), with r = trust_ratio of the parameter and its
// gradient, of the same weight decay:
//   m <- u m + r (g + d p)              p <- p - n m
// The paper has n inside of the momentum; here it is outside, as in sgd_update, so that a change of
// the learning rate takes effect at once.
SgdUpdate lars_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                      ValueId trust_ratio, const std::vector<ValueId>& parameters,
                      const std::vector<ValueId>& gradients, const std::vector<ValueId>& momenta,
                      const LarsOptions& options);

struct LambOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-6;
  double weight_decay = 0;
};

struct LambDirection {
  std::vector<ValueId> directions;
  std::vector<ValueId> first_moments;
  std::vector<ValueId> second_moments;
};

// The first half of LAMB (You et al. 2020, algorithm 2, where phi is the identity), with moments as
// for adam_update:
//   s = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) + d p
// The other half is sgd_update of s, with trust_ratio of p and s as its gradient_scale.
LambDirection lamb_direction(GraphBuilder& builder, ValueId gradient_scale, ValueId step_count,
                             const std::vector<ValueId>& parameters,
                             const std::vector<ValueId>& gradients,
                             const std::vector<ValueId>& first_moments,
                             const std::vector<ValueId>& second_moments,
                             const LambOptions& options);

struct Momentum {
  ValueId momentum = kNoValue;   // what it becomes
  ValueId direction = kNoValue;  // of the step
};

// Takes the gradient of one parameter into its momentum, g being gradient_scale * gradient:
//   m <- u m + g                        direction: m, or g + u m for Nesterov
Momentum momentum(GraphBuilder& builder, ValueId gradient_scale, ValueId momentum, ValueId gradient,
                  double factor, bool nesterov);

// The sum of the squares of every element of every value, an f64 scalar, since the square of a
// large norm is more than an f32 holds: their squared Euclidean norm. Runs of Placement::kFlat are
// summed in f64, and those sums without rounding: so it does not depend on who adds up which runs.
ValueId sum_of_squares(GraphBuilder& builder, const std::vector<ValueId>& values);
// That of each value by itself, f64 [values]. Attribute "apart" of the same op.
ValueId sums_of_squares(GraphBuilder& builder, const std::vector<ValueId>& values);
// The same in two halves, for those who share the numbers: the digits of a sum that is not rounded
// (base/exact_sum.h, i64), or a row of them for each value; these can be added. And the f64 next to
// the sum of several of these. Attribute "numbers" of the first: how many of each value count,
// where it is a part that others follow.
ValueId exact_sum_of_squares(GraphBuilder& builder, const std::vector<ValueId>& values);
ValueId rounded_sum(GraphBuilder& builder, const std::vector<ValueId>& sums);

// min(1, max_norm / (sqrt(sum_of_squares) + 1e-6)), an f32 scalar: what gradients are scaled by so
// that their norm is at most max_norm (Pascanu, Mikolov, Bengio 2013). NaN stays NaN.
ValueId clip_factor(GraphBuilder& builder, ValueId sum_of_squares, double max_norm);

// (1 - momentum) * running + momentum * value.
ValueId moving_average(GraphBuilder& builder, ValueId running, ValueId value, double momentum);

}  // namespace concord::ops

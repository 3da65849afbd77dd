// Optimizers, as graph builders over ops/optimizer.h.
#pragma once

#include <string>
#include <vector>

#include "concord/graph/builder.h"

namespace concord {

struct OptimizerOptions {
  std::string name = "sgd";  // sgd, adam or adamw (adam with decoupled weight decay)
  double momentum = 0.9;     // sgd; 0: none
  bool nesterov = false;     // sgd
  double weight_decay = 0;
  bool decoupled = false;            // weight decay beside the gradient; adamw sets it
  bool decay_norm_and_bias = false;  // decay also parameters whose state says decay = false
  double beta1 = 0.9;                // adam, adamw
  double beta2 = 0.999;              // adam, adamw
  double epsilon = 1e-8;             // adam, adamw
  double clip_norm = 0;  // the gradient's largest norm over all parameters; 0: not clipped
};

struct ParameterGradient {
  ValueId parameter = kNoValue;  // a state
  ValueId gradient = kNoValue;   // of the whole step: after leaf_sum
};

// Adds the update of the parameters to the graph: the optimizer's states, named after the parameter
// ("<parameter>.momentum", or "<parameter>.adam_m" and "<parameter>.adam_v", and for adam
// "optimizer.step", the number of steps taken), the gradient clipping, and what each state becomes.
// `learning_rate` is an f32 scalar. Throws Error for an unknown optimizer, an option outside its
// range, or a parameter without a gradient.
void apply_optimizer(GraphBuilder& builder, const OptimizerOptions& options,
                     const std::vector<ParameterGradient>& parameters, ValueId learning_rate);

}  // namespace concord

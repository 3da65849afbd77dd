// Optimizers, as graph builders over ops/optimizer.h.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "concord/graph/builder.h"

namespace concord {

// The learning rate of the parameters called `prefix`, or "<prefix>.<...>", is multiplied by
// `factor`; of several prefixes that fit the longest counts.
struct RateFactor {
  std::string prefix;
  double factor = 1;
};

// Of "<prefix>=<factor>", such as "h.0=0.5"; nothing where `text` is not such, or the factor is not
// 0 or a positive number.
std::optional<RateFactor> parse_rate_factor(std::string_view text);

struct OptimizerOptions {
  // sgd, adam, adamw (adam with decoupled weight decay), lion, rmsprop, adagrad, lars or lamb,
  // whose formulas are in ops/optimizer.h; or muon, see below.
  std::string name = "sgd";
  double momentum = 0.9;  // sgd, rmsprop, lars, muon; 0: none
  bool nesterov = false;  // sgd, muon
  double weight_decay = 0;
  bool decoupled = false;            // weight decay beside the gradient; adamw, lion, muon set it
  bool decay_norm_and_bias = false;  // decay also parameters whose state says decay = false
  double beta1 = 0.9;                // adam, adamw, lion, lamb, muon
  double beta2 = 0.999;              // adam, adamw, lion, lamb, muon
  double epsilon = 1e-8;             // adam, adamw, rmsprop, adagrad, lamb, muon
  double alpha = 0.99;               // rmsprop
  double trust_coefficient = 0.001;  // lars
  // muon: what multiplies the learning rate of the parameters that AdamW updates
  double adamw_rate_factor = 1;
  double clip_norm = 0;           // the gradient's largest norm over all parameters; 0: not clipped
  double ema_decay = 0;           // of the moving averages of the parameters, see below; 0: none
  std::vector<RateFactor> rates;  // layer-wise learning rates
  // One step of the update takes parameters of so many numbers at most, or one parameter; 0: all.
  // Results do not depend on it.
  std::int64_t numbers_at_once = 0;
};

// Options with the values that the optimizer's authors, or PyTorch, set where they differ from the
// above: for rmsprop no momentum, for muon Nesterov's of 0.95; for adagrad epsilon = 1e-10, for
// lamb 1e-6; for lion beta2 = 0.99. Of an unknown name, those above.
OptimizerOptions usual_options(std::string_view name);

// Behind the name of a parameter: the state that holds its moving average.
inline constexpr std::string_view kAverageSuffix = ".ema";

struct ParameterGradient {
  ValueId parameter = kNoValue;  // a state
  ValueId gradient = kNoValue;   // of the whole step: after leaf_sum
};

// Adds the update of the parameters to the graph: the optimizer's states, named after the parameter
// ("<parameter>.momentum", or "<parameter>.adam_m" and "<parameter>.adam_v", and for adam
// "optimizer.step", the number of steps taken), the gradient clipping, and what each state becomes.
// `learning_rate` is an f32 scalar.
//
// lars and lamb: parameters without weight decay, which are norms and biases unless
// decay_norm_and_bias is set, get no trust ratio. They are updated as by sgd, and by adam.
//
// muon (Jordan et al. 2024) updates hidden matrices of R rows and C columns (optim/muon.h), filters
// being flattened to [output channels, the rest], and AdamW all other parameters:
//   m <- u m + g                        s = orthogonalize(m, or g + u m for Nesterov)
//   p <- p (1 - n d) - n 0.2 sqrt(max(R, C)) s
// The factor (Liu et al. 2025, section 2.2) makes steps as large as AdamW's, so that learning rates
// and weight decays made for AdamW fit both. It is Jordan's optimizer but for this factor.
//
// With ema_decay d, each parameter p has an exponential moving average (Polyak and Juditsky 1992
// average evenly), "<parameter>.ema", which is to start as the parameter does. After each update:
//   e <- d e + (1 - d) p
//
// Throws Error for an unknown optimizer, an option outside its range, a parameter without a
// gradient, a rate's prefix that no parameter has or that has two factors, or where muon cannot
// tell the classifier.
void apply_optimizer(GraphBuilder& builder, const OptimizerOptions& options,
                     const std::vector<ParameterGradient>& parameters, ValueId learning_rate);

}  // namespace concord

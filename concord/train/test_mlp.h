// The model of tests over several ranks.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "concord/nn/step.h"

namespace concord {

// An MLP over samples of `width` numbers whose bits depend on leaves, steps and every gradient:
// with dropout, AdamW and the norm of all gradients clipped.
inline nn::StepOptions test_mlp(std::int64_t width, std::vector<std::int64_t> hidden) {
  nn::StepOptions options;
  options.model.name = "mlp";
  options.model.hidden = std::move(hidden);
  options.model.dropout = 0.2;
  options.sample = {width};
  options.outputs = 4;
  options.optimizer.name = "adamw";
  options.optimizer.clip_norm = 0.3;
  options.seed = 5;
  return options;
}

}  // namespace concord

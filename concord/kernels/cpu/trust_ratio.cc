// Updates whose step is scaled, for each parameter, by a ratio of two norms.
#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/trust_ratio.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/update.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

#ifndef CONCORD_KERNELS_CPU_TRUST_RATIO_ONCE_
#define CONCORD_KERNELS_CPU_TRUST_RATIO_ONCE_
namespace concord::cpu {

// The updates of ops/optimizer.h with everything that is the same for all elements worked out.
struct LarsStep {
  float learning_rate, gradient_scale, weight_decay, momentum;
};

struct LambStep {
  float learning_rate, gradient_scale, weight_decay;
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float mean_factor;  // 1 / (1 - beta1^t)
  float root_factor;  // 1 / sqrt(1 - beta2^t)
  float epsilon;
};

// Sums of squares: of parameters, and of what their norm is compared with.
struct SquareSums {
  double parameters = 0, steps = 0;
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

SquareSums MeasureLars(const UpdateRun& run, std::size_t count) {
  return {sum_of_squares(run.parameter, count), sum_of_squares(run.gradient, count)};
}

void UpdateLars(const LarsStep& s, float ratio, const UpdateRun& run, std::size_t count) {
  const V rate = splat(-s.learning_rate), decay = splat(ratio * s.weight_decay);
  const V scale = splat(ratio * s.gradient_scale), momentum = splat(s.momentum);
  for_each_vector(count, [&](auto i, auto n, int) {
    const V p = load(run.parameter + i, n);
    V step = hn::MulAdd(decay, p, hn::Mul(scale, load(run.gradient + i, n)));
    if (run.memory[0] != nullptr) {
      step = hn::MulAdd(momentum, load(run.memory[0] + i, n), step);
      store(step, run.next_memory[0] + i, n);
    }
    store(hn::MulAdd(rate, step, p), run.next_parameter + i, n);
  });
}

// The direction of Adam with the weight decay, of moments that have taken the gradient in.
HWY_INLINE V lamb_direction(const LambStep& s, V p, V m, V v) {
  const V denominator = hn::MulAdd(hn::Sqrt(v), splat(s.root_factor), splat(s.epsilon));
  const V adam = hn::Div(hn::Mul(m, splat(s.mean_factor)), denominator);
  return hn::MulAdd(splat(s.weight_decay), p, adam);
}

// Takes the gradient into the moments. The direction is kept no longer than its square needs: the
// update works it out again, which costs less than another tensor to write and read.
SquareSums MeasureLamb(const LambStep& s, const UpdateRun& run, std::size_t count) {
  constexpr std::size_t kTile = 1024;
  HWY_ALIGN float direction[kTile];
  const V scale = splat(s.gradient_scale);
  const V beta1 = splat(s.beta1), rest1 = splat(s.one_minus_beta1);
  const V beta2 = splat(s.beta2), rest2 = splat(s.one_minus_beta2);
  SquareSums sums;
  for (std::size_t at = 0; at < count; at += kTile) {
    const std::size_t size = std::min(kTile, count - at);
    for_each_vector(size, [&](auto i, auto n, int) {
      const V g = hn::Mul(scale, load(run.gradient + at + i, n));
      const V m = hn::MulAdd(beta1, load(run.memory[0] + at + i, n), hn::Mul(rest1, g));
      const V v = hn::MulAdd(beta2, load(run.memory[1] + at + i, n), hn::Mul(rest2, hn::Mul(g, g)));
      store(m, run.next_memory[0] + at + i, n);
      store(v, run.next_memory[1] + at + i, n);
      store(lamb_direction(s, load(run.parameter + at + i, n), m, v), direction + i, n);
    });
    sums.parameters += sum_of_squares(run.parameter + at, size);
    sums.steps += sum_of_squares(direction, size);
  }
  return sums;
}

void UpdateLamb(const LambStep& s, float ratio, const UpdateRun& run, std::size_t count) {
  const V rate = splat(-s.learning_rate * ratio);
  for_each_vector(count, [&](auto i, auto n, int) {
    const V p = load(run.parameter + i, n);
    const V step =
        lamb_direction(s, p, load(run.next_memory[0] + i, n), load(run.next_memory[1] + i, n));
    store(hn::MulAdd(rate, step, p), run.next_parameter + i, n);
  });
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(MeasureLars);
HWY_EXPORT(UpdateLars);
HWY_EXPORT(MeasureLamb);
HWY_EXPORT(UpdateLamb);

namespace {

// Two passes over memory by a rule. The first measures the norms of each parameter, as sums in
// double of chunks whose places do not depend on the threads, added up in order; the second
// updates.
template <typename Rule>
class TrustRatioUpdate final : public Kernel {
 public:
  static constexpr std::size_t kScalars = Rule::kScalars;
  TrustRatioUpdate(const Sequence& parameters, std::size_t memories, const Attributes& attributes)
      : tensors_(parameters.tensors()), memories_(memories), rule_(attributes) {
    parameters.for_each_piece(0, parameters.total(),
                              [&](std::size_t tensor, std::int64_t begin, std::int64_t end) {
                                for (std::int64_t at = begin; at < end; at += kGrain) {
                                  chunks_.push_back({tensor, at, std::min(at + kGrain, end)});
                                }
                              });
    // Small parameters together are one piece of work.
    grain_ = parameters.total() <= kGrain ? std::max<std::int64_t>(1, chunks()) : 1;
  }

  std::size_t scratchpad_bytes() const override {
    return chunks_.size() * sizeof(SquareSums) + tensors_ * sizeof(float);
  }

  void run(std::span<std::byte* const> operands) override {
    const UpdateOperands at{operands, kScalars, tensors_, memories_};
    const auto step = rule_.step(at);
    auto* sums = as<SquareSums>(operands.back());
    float* ratios = as<float>(operands.back() + chunks_.size() * sizeof(SquareSums));
    for_each_chunk([&](std::size_t i, const Chunk& chunk) {
      sums[i] = Rule::measure(step, at.run(chunk.tensor, chunk.begin), chunk.size());
    });
    for (std::size_t i = 0; i < chunks_.size();) {
      const std::size_t tensor = chunks_[i].tensor;
      SquareSums sum;
      for (; i < chunks_.size() && chunks_[i].tensor == tensor; ++i) {
        sum.parameters += sums[i].parameters;
        sum.steps += sums[i].steps;
      }
      ratios[tensor] = static_cast<float>(rule_.ratio(step, sum));
    }
    for_each_chunk([&](std::size_t, const Chunk& chunk) {
      Rule::apply(step, ratios[chunk.tensor], at.run(chunk.tensor, chunk.begin), chunk.size());
    });
  }

 private:
  struct Chunk {
    std::size_t tensor;
    std::int64_t begin, end;
    std::size_t size() const { return static_cast<std::size_t>(end - begin); }
  };

  std::int64_t chunks() const { return static_cast<std::int64_t>(chunks_.size()); }

  template <typename F>
  void for_each_chunk(F f) const {
    parallel_for(chunks(), grain_, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        f(i, chunks_[i]);
      }
    });
  }

  std::size_t tensors_, memories_;
  Rule rule_;
  std::vector<Chunk> chunks_;  // in the order of the parameters
  std::int64_t grain_ = 1;     // chunks
};

class LarsRule {
 public:
  static constexpr std::size_t kScalars = 2;
  explicit LarsRule(const Attributes& attributes)
      : momentum_(attributes.real("momentum")),
        weight_decay_(attributes.real("weight_decay")),
        trust_coefficient_(attributes.real("trust_coefficient")) {}

  LarsStep step(const UpdateOperands& at) const {
    return {.learning_rate = static_cast<float>(at.scalar(0)),
            .gradient_scale = static_cast<float>(at.scalar(1)),
            .weight_decay = static_cast<float>(weight_decay_),
            .momentum = static_cast<float>(momentum_)};
  }
  static SquareSums measure(const LarsStep&, const UpdateRun& run, std::size_t count) {
    return HWY_DYNAMIC_DISPATCH(MeasureLars)(run, count);
  }
  double ratio(const LarsStep& step, const SquareSums& sums) const {
    const double parameter = std::sqrt(sums.parameters);
    const double gradient = std::abs(step.gradient_scale) * std::sqrt(sums.steps);
    if (parameter == 0 || gradient == 0) return 1;
    return trust_coefficient_ * parameter / (gradient + weight_decay_ * parameter);
  }
  static void apply(const LarsStep& step, float ratio, const UpdateRun& run, std::size_t count) {
    HWY_DYNAMIC_DISPATCH(UpdateLars)(step, ratio, run, count);
  }

 private:
  double momentum_, weight_decay_, trust_coefficient_;
};

class LambRule {
 public:
  static constexpr std::size_t kScalars = 3;
  explicit LambRule(const Attributes& attributes)
      : beta1_(attributes.real("beta1")),
        beta2_(attributes.real("beta2")),
        epsilon_(attributes.real("epsilon")),
        weight_decay_(attributes.real("weight_decay")) {}

  LambStep step(const UpdateOperands& at) const {
    const double bias1 = 1 - std::pow(beta1_, at.scalar(2));
    const double bias2 = 1 - std::pow(beta2_, at.scalar(2));
    return {.learning_rate = static_cast<float>(at.scalar(0)),
            .gradient_scale = static_cast<float>(at.scalar(1)),
            .weight_decay = static_cast<float>(weight_decay_),
            .beta1 = static_cast<float>(beta1_),
            .one_minus_beta1 = static_cast<float>(1 - beta1_),
            .beta2 = static_cast<float>(beta2_),
            .one_minus_beta2 = static_cast<float>(1 - beta2_),
            .mean_factor = static_cast<float>(1 / bias1),
            .root_factor = static_cast<float>(1 / std::sqrt(bias2)),
            .epsilon = static_cast<float>(epsilon_)};
  }
  static SquareSums measure(const LambStep& step, const UpdateRun& run, std::size_t count) {
    return HWY_DYNAMIC_DISPATCH(MeasureLamb)(step, run, count);
  }
  static double ratio(const LambStep&, const SquareSums& sums) {
    if (sums.parameters == 0 || sums.steps == 0) return 1;
    return std::sqrt(sums.parameters / sums.steps);
  }
  static void apply(const LambStep& step, float ratio, const UpdateRun& run, std::size_t count) {
    HWY_DYNAMIC_DISPATCH(UpdateLamb)(step, ratio, run, count);
  }

 private:
  double beta1_, beta2_, epsilon_, weight_decay_;
};

const RegisterKernelRule lars_update{update_rule<TrustRatioUpdate<LarsRule>>("lars_update")};
const RegisterKernelRule lamb_update{update_rule<TrustRatioUpdate<LambRule>>("lamb_update")};

}  // namespace
}  // namespace concord::cpu
#endif

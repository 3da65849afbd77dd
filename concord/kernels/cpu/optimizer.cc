#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/optimizer.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/update.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

#ifndef CONCORD_KERNELS_CPU_OPTIMIZER_ONCE_
#define CONCORD_KERNELS_CPU_OPTIMIZER_ONCE_
namespace concord::cpu {

// The updates of ops/optimizer.h with everything that is the same for all elements worked out.
struct SgdStep {
  float learning_rate, gradient_scale, coupled_decay, parameter_factor, momentum;
  bool nesterov;
};

struct AdamStep {
  float gradient_scale, coupled_decay, parameter_factor;
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float rate;         // learning rate / (1 - beta1^t)
  float root_factor;  // 1 / sqrt(1 - beta2^t)
  float epsilon;
};

struct LionStep {
  float learning_rate, gradient_scale, parameter_factor;
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
};

struct RmspropStep {
  float learning_rate, gradient_scale, coupled_decay, parameter_factor;
  float alpha, one_minus_alpha, epsilon, momentum;
};

struct AdagradStep {
  float learning_rate, gradient_scale, coupled_decay, parameter_factor, epsilon;
};

struct LarsStep {
  float learning_rate, gradient_scale, decay, momentum;
};

struct LambStep {
  float gradient_scale, weight_decay;
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float mean_factor;  // 1 / (1 - beta1^t)
  float root_factor;  // 1 / sqrt(1 - beta2^t)
  float epsilon;
};

struct MomentumStep {
  float gradient_scale, factor;
  bool nesterov;
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

void UpdateSgd(const SgdStep& s, const UpdateRun& run, std::size_t count) {
  const V rate = splat(-s.learning_rate), decay = splat(s.coupled_decay);
  const V scale = splat(s.gradient_scale), factor = splat(s.parameter_factor);
  const V momentum = splat(s.momentum);
  for_each_vector(count, [&](auto i, auto n, int) {
    const V p = load(run.parameter + i, n);
    V step = hn::MulAdd(decay, p, hn::Mul(scale, load(run.gradient + i, n)));
    if (run.memory[0] != nullptr) {
      const V m = hn::MulAdd(momentum, load(run.memory[0] + i, n), step);
      store(m, run.next_memory[0] + i, n);
      step = s.nesterov ? hn::MulAdd(momentum, m, step) : m;
    }
    store(hn::MulAdd(rate, step, hn::Mul(p, factor)), run.next_parameter + i, n);
  });
}

void UpdateAdam(const AdamStep& s, const UpdateRun& run, std::size_t count) {
  const V scale = splat(s.gradient_scale), decay = splat(s.coupled_decay);
  const V factor = splat(s.parameter_factor), rate = splat(-s.rate);
  const V beta1 = splat(s.beta1), rest1 = splat(s.one_minus_beta1);
  const V beta2 = splat(s.beta2), rest2 = splat(s.one_minus_beta2);
  const V root_factor = splat(s.root_factor), epsilon = splat(s.epsilon);
  for_each_vector(count, [&](auto i, auto n, int) {
    const V p = load(run.parameter + i, n);
    const V g = hn::MulAdd(decay, p, hn::Mul(scale, load(run.gradient + i, n)));
    const V m = hn::MulAdd(beta1, load(run.memory[0] + i, n), hn::Mul(rest1, g));
    const V v = hn::MulAdd(beta2, load(run.memory[1] + i, n), hn::Mul(rest2, hn::Mul(g, g)));
    const V denominator = hn::MulAdd(hn::Sqrt(v), root_factor, epsilon);
    store(m, run.next_memory[0] + i, n);
    store(v, run.next_memory[1] + i, n);
    store(hn::MulAdd(rate, hn::Div(m, denominator), hn::Mul(p, factor)), run.next_parameter + i, n);
  });
}

// 1, 0 or -1; NaN stays NaN.
V sign(V x) {
  const V zero = hn::Zero(D());
  return hn::IfThenElse(hn::Gt(hn::Abs(x), zero), hn::CopySign(splat(1), x), x);
}

void UpdateLion(const LionStep& s, const UpdateRun& run, std::size_t count) {
  const V scale = splat(s.gradient_scale), factor = splat(s.parameter_factor);
  const V rate = splat(-s.learning_rate);
  const V beta1 = splat(s.beta1), rest1 = splat(s.one_minus_beta1);
  const V beta2 = splat(s.beta2), rest2 = splat(s.one_minus_beta2);
  for_each_vector(count, [&](auto i, auto n, int) {
    const V g = hn::Mul(scale, load(run.gradient + i, n)), m = load(run.memory[0] + i, n);
    const V step = sign(hn::MulAdd(beta1, m, hn::Mul(rest1, g)));
    const V p = hn::Mul(load(run.parameter + i, n), factor);
    store(hn::MulAdd(beta2, m, hn::Mul(rest2, g)), run.next_memory[0] + i, n);
    store(hn::MulAdd(rate, step, p), run.next_parameter + i, n);
  });
}

void UpdateRmsprop(const RmspropStep& s, const UpdateRun& run, std::size_t count) {
  const V scale = splat(s.gradient_scale), decay = splat(s.coupled_decay);
  const V factor = splat(s.parameter_factor), rate = splat(-s.learning_rate);
  const V alpha = splat(s.alpha), rest = splat(s.one_minus_alpha);
  const V epsilon = splat(s.epsilon), momentum = splat(s.momentum);
  for_each_vector(count, [&](auto i, auto n, int) {
    const V p = load(run.parameter + i, n);
    const V g = hn::MulAdd(decay, p, hn::Mul(scale, load(run.gradient + i, n)));
    const V v = hn::MulAdd(alpha, load(run.memory[0] + i, n), hn::Mul(rest, hn::Mul(g, g)));
    store(v, run.next_memory[0] + i, n);
    V step = hn::Div(g, hn::Add(hn::Sqrt(v), epsilon));
    if (run.memory[1] != nullptr) {
      step = hn::MulAdd(momentum, load(run.memory[1] + i, n), step);
      store(step, run.next_memory[1] + i, n);
    }
    store(hn::MulAdd(rate, step, hn::Mul(p, factor)), run.next_parameter + i, n);
  });
}

void UpdateAdagrad(const AdagradStep& s, const UpdateRun& run, std::size_t count) {
  const V scale = splat(s.gradient_scale), decay = splat(s.coupled_decay);
  const V factor = splat(s.parameter_factor), rate = splat(-s.learning_rate);
  const V epsilon = splat(s.epsilon);
  for_each_vector(count, [&](auto i, auto n, int) {
    const V p = load(run.parameter + i, n);
    const V g = hn::MulAdd(decay, p, hn::Mul(scale, load(run.gradient + i, n)));
    const V v = hn::MulAdd(g, g, load(run.memory[0] + i, n));
    store(v, run.next_memory[0] + i, n);
    const V step = hn::Div(g, hn::Add(hn::Sqrt(v), epsilon));
    store(hn::MulAdd(rate, step, hn::Mul(p, factor)), run.next_parameter + i, n);
  });
}

void UpdateLars(const LarsStep& s, const UpdateRun& run, std::size_t count) {
  const V rate = splat(-s.learning_rate), decay = splat(s.decay);
  const V scale = splat(s.gradient_scale), momentum = splat(s.momentum);
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

void LambDirection(const LambStep& s, const UpdateRun& run, std::size_t count) {
  const V scale = splat(s.gradient_scale), decay = splat(s.weight_decay);
  const V beta1 = splat(s.beta1), rest1 = splat(s.one_minus_beta1);
  const V beta2 = splat(s.beta2), rest2 = splat(s.one_minus_beta2);
  const V mean_factor = splat(s.mean_factor), root_factor = splat(s.root_factor);
  const V epsilon = splat(s.epsilon);
  for_each_vector(count, [&](auto i, auto n, int) {
    const V p = load(run.parameter + i, n), g = hn::Mul(scale, load(run.gradient + i, n));
    const V m = hn::MulAdd(beta1, load(run.memory[0] + i, n), hn::Mul(rest1, g));
    const V v = hn::MulAdd(beta2, load(run.memory[1] + i, n), hn::Mul(rest2, hn::Mul(g, g)));
    const V denominator = hn::MulAdd(hn::Sqrt(v), root_factor, epsilon);
    store(m, run.next_memory[0] + i, n);
    store(v, run.next_memory[1] + i, n);
    const V adam = hn::Div(hn::Mul(m, mean_factor), denominator);
    store(hn::MulAdd(decay, p, adam), run.next_parameter + i, n);
  });
}

void TakeIntoMomentum(const MomentumStep& s, const float* momentum, const float* gradient,
                      float* next, float* direction, std::size_t count) {
  const V scale = splat(s.gradient_scale), factor = splat(s.factor);
  for_each_vector(count, [&](auto i, auto n, int) {
    const V g = hn::Mul(scale, load(gradient + i, n));
    const V m = hn::MulAdd(factor, load(momentum + i, n), g);
    store(m, next + i, n);
    store(s.nesterov ? hn::MulAdd(factor, m, g) : m, direction + i, n);
  });
}

// y = (1 - momentum) * running + momentum * value.
void MovingAverage(float momentum, const float* running, const float* value, float* y,
                   std::size_t count) {
  const V weight = splat(momentum), rest = splat(1 - momentum);
  for_each_vector(count, [&](auto i, auto n, int) {
    store(hn::MulAdd(weight, load(value + i, n), hn::Mul(rest, load(running + i, n))), y + i, n);
  });
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(UpdateSgd);
HWY_EXPORT(UpdateAdam);
HWY_EXPORT(UpdateLion);
HWY_EXPORT(UpdateRmsprop);
HWY_EXPORT(UpdateAdagrad);
HWY_EXPORT(UpdateLars);
HWY_EXPORT(LambDirection);
HWY_EXPORT(TakeIntoMomentum);
HWY_EXPORT(MovingAverage);

namespace {

// One pass over memory by a rule: how many scalars it takes, what a step makes of them, and the
// update of a run of elements.
template <typename Rule>
class Update final : public Kernel {
 public:
  static constexpr std::size_t kScalars = Rule::kScalars;
  Update(Sequence parameters, std::size_t memories, const Attributes& attributes)
      : parameters_(std::move(parameters)), memories_(memories), rule_(attributes) {}

  void run(std::span<std::byte* const> operands) override {
    const UpdateOperands at{operands, kScalars, parameters_.tensors(), memories_};
    const auto step = rule_.step(at);
    parallel_for(parameters_.total(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      parameters_.for_each_piece(
          begin, end, [&](std::size_t tensor, std::int64_t from, std::int64_t to) {
            Rule::apply(step, at.run(tensor, from), static_cast<std::size_t>(to - from));
          });
    });
  }

 private:
  Sequence parameters_;
  std::size_t memories_;
  Rule rule_;
};

class SgdRule {
 public:
  static constexpr std::size_t kScalars = 2;
  explicit SgdRule(const Attributes& attributes)
      : decay_(attributes),
        momentum_(attributes.real("momentum")),
        nesterov_(attributes.integer("nesterov") != 0) {}

  SgdStep step(const UpdateOperands& at) const {
    return {.learning_rate = static_cast<float>(at.scalar(0)),
            .gradient_scale = static_cast<float>(at.scalar(1)),
            .coupled_decay = decay_.coupled(),
            .parameter_factor = decay_.parameter_factor(at.scalar(0)),
            .momentum = static_cast<float>(momentum_),
            .nesterov = nesterov_};
  }
  static void apply(const SgdStep& step, const UpdateRun& run, std::size_t count) {
    HWY_DYNAMIC_DISPATCH(UpdateSgd)(step, run, count);
  }

 private:
  Decay decay_;
  double momentum_;
  bool nesterov_;
};

class AdamRule {
 public:
  static constexpr std::size_t kScalars = 3;
  explicit AdamRule(const Attributes& attributes)
      : decay_(attributes),
        beta1_(attributes.real("beta1")),
        beta2_(attributes.real("beta2")),
        epsilon_(attributes.real("epsilon")) {}

  AdamStep step(const UpdateOperands& at) const {
    const double bias1 = 1 - std::pow(beta1_, at.scalar(2));
    const double bias2 = 1 - std::pow(beta2_, at.scalar(2));
    return {.gradient_scale = static_cast<float>(at.scalar(1)),
            .coupled_decay = decay_.coupled(),
            .parameter_factor = decay_.parameter_factor(at.scalar(0)),
            .beta1 = static_cast<float>(beta1_),
            .one_minus_beta1 = static_cast<float>(1 - beta1_),
            .beta2 = static_cast<float>(beta2_),
            .one_minus_beta2 = static_cast<float>(1 - beta2_),
            .rate = static_cast<float>(at.scalar(0) / bias1),
            .root_factor = static_cast<float>(1 / std::sqrt(bias2)),
            .epsilon = static_cast<float>(epsilon_)};
  }
  static void apply(const AdamStep& step, const UpdateRun& run, std::size_t count) {
    HWY_DYNAMIC_DISPATCH(UpdateAdam)(step, run, count);
  }

 private:
  Decay decay_;
  double beta1_, beta2_, epsilon_;
};

class LionRule {
 public:
  static constexpr std::size_t kScalars = 2;
  explicit LionRule(const Attributes& attributes)
      : decay_(attributes), beta1_(attributes.real("beta1")), beta2_(attributes.real("beta2")) {}

  LionStep step(const UpdateOperands& at) const {
    return {.learning_rate = static_cast<float>(at.scalar(0)),
            .gradient_scale = static_cast<float>(at.scalar(1)),
            .parameter_factor = decay_.parameter_factor(at.scalar(0)),
            .beta1 = static_cast<float>(beta1_),
            .one_minus_beta1 = static_cast<float>(1 - beta1_),
            .beta2 = static_cast<float>(beta2_),
            .one_minus_beta2 = static_cast<float>(1 - beta2_)};
  }
  static void apply(const LionStep& step, const UpdateRun& run, std::size_t count) {
    HWY_DYNAMIC_DISPATCH(UpdateLion)(step, run, count);
  }

 private:
  Decay decay_;
  double beta1_, beta2_;
};

class RmspropRule {
 public:
  static constexpr std::size_t kScalars = 2;
  explicit RmspropRule(const Attributes& attributes)
      : decay_(attributes),
        alpha_(attributes.real("alpha")),
        epsilon_(attributes.real("epsilon")),
        momentum_(attributes.real("momentum")) {}

  RmspropStep step(const UpdateOperands& at) const {
    return {.learning_rate = static_cast<float>(at.scalar(0)),
            .gradient_scale = static_cast<float>(at.scalar(1)),
            .coupled_decay = decay_.coupled(),
            .parameter_factor = decay_.parameter_factor(at.scalar(0)),
            .alpha = static_cast<float>(alpha_),
            .one_minus_alpha = static_cast<float>(1 - alpha_),
            .epsilon = static_cast<float>(epsilon_),
            .momentum = static_cast<float>(momentum_)};
  }
  static void apply(const RmspropStep& step, const UpdateRun& run, std::size_t count) {
    HWY_DYNAMIC_DISPATCH(UpdateRmsprop)(step, run, count);
  }

 private:
  Decay decay_;
  double alpha_, epsilon_, momentum_;
};

class AdagradRule {
 public:
  static constexpr std::size_t kScalars = 2;
  explicit AdagradRule(const Attributes& attributes)
      : decay_(attributes), epsilon_(attributes.real("epsilon")) {}

  AdagradStep step(const UpdateOperands& at) const {
    return {.learning_rate = static_cast<float>(at.scalar(0)),
            .gradient_scale = static_cast<float>(at.scalar(1)),
            .coupled_decay = decay_.coupled(),
            .parameter_factor = decay_.parameter_factor(at.scalar(0)),
            .epsilon = static_cast<float>(epsilon_)};
  }
  static void apply(const AdagradStep& step, const UpdateRun& run, std::size_t count) {
    HWY_DYNAMIC_DISPATCH(UpdateAdagrad)(step, run, count);
  }

 private:
  Decay decay_;
  double epsilon_;
};

class LarsRule {
 public:
  static constexpr std::size_t kScalars = 3;
  explicit LarsRule(const Attributes& attributes)
      : momentum_(static_cast<float>(attributes.real("momentum"))),
        weight_decay_(static_cast<float>(attributes.real("weight_decay"))) {}

  LarsStep step(const UpdateOperands& at) const {
    const auto ratio = static_cast<float>(at.scalar(2));
    return {.learning_rate = static_cast<float>(at.scalar(0)),
            .gradient_scale = ratio * static_cast<float>(at.scalar(1)),
            .decay = ratio * weight_decay_,
            .momentum = momentum_};
  }
  static void apply(const LarsStep& step, const UpdateRun& run, std::size_t count) {
    HWY_DYNAMIC_DISPATCH(UpdateLars)(step, run, count);
  }

 private:
  float momentum_, weight_decay_;
};

// The next parameter of its runs is the direction.
class LambRule {
 public:
  static constexpr std::size_t kScalars = 2;
  explicit LambRule(const Attributes& attributes)
      : beta1_(attributes.real("beta1")),
        beta2_(attributes.real("beta2")),
        epsilon_(attributes.real("epsilon")),
        weight_decay_(attributes.real("weight_decay")) {}

  LambStep step(const UpdateOperands& at) const {
    const double bias1 = 1 - std::pow(beta1_, at.scalar(1));
    const double bias2 = 1 - std::pow(beta2_, at.scalar(1));
    return {.gradient_scale = static_cast<float>(at.scalar(0)),
            .weight_decay = static_cast<float>(weight_decay_),
            .beta1 = static_cast<float>(beta1_),
            .one_minus_beta1 = static_cast<float>(1 - beta1_),
            .beta2 = static_cast<float>(beta2_),
            .one_minus_beta2 = static_cast<float>(1 - beta2_),
            .mean_factor = static_cast<float>(1 / bias1),
            .root_factor = static_cast<float>(1 / std::sqrt(bias2)),
            .epsilon = static_cast<float>(epsilon_)};
  }
  static void apply(const LambStep& step, const UpdateRun& run, std::size_t count) {
    HWY_DYNAMIC_DISPATCH(LambDirection)(step, run, count);
  }

 private:
  double beta1_, beta2_, epsilon_, weight_decay_;
};

const RegisterKernelRule sgd_update{update_rule<Update<SgdRule>>("sgd_update")};
const RegisterKernelRule adam_update{update_rule<Update<AdamRule>>("adam_update")};
const RegisterKernelRule lion_update{update_rule<Update<LionRule>>("lion_update")};
const RegisterKernelRule rmsprop_update{update_rule<Update<RmspropRule>>("rmsprop_update")};
const RegisterKernelRule adagrad_update{update_rule<Update<AdagradRule>>("adagrad_update")};
const RegisterKernelRule lars_update{update_rule<Update<LarsRule>>("lars_update")};
const RegisterKernelRule lamb_direction{update_rule<Update<LambRule>>("lamb_direction")};

class MomentumKernel final : public Kernel {
 public:
  explicit MomentumKernel(const Signature& s)
      : factor_(static_cast<float>(s.node.attributes.real("factor"))),
        nesterov_(s.node.attributes.integer("nesterov") != 0),
        elements_(stored_elements(s.outputs[0])) {
    expect_f32(s);
  }
  void run(std::span<std::byte* const> operands) override {
    const MomentumStep step{
        .gradient_scale = *as<float>(operands[0]), .factor = factor_, .nesterov = nesterov_};
    parallel_for(elements_, kGrain, [&](std::int64_t begin, std::int64_t end) {
      HWY_DYNAMIC_DISPATCH(TakeIntoMomentum)
      (step, as<float>(operands[1]) + begin, as<float>(operands[2]) + begin,
       as<float>(operands[3]) + begin, as<float>(operands[4]) + begin,
       static_cast<std::size_t>(end - begin));
    });
  }

 private:
  float factor_;
  bool nesterov_;
  std::int64_t elements_;
};

const RegisterKernelRule momentum{{
    .op = "momentum",
    .layouts = [](const Signature&, std::span<const std::optional<Layout>> inputs,
                  KernelPolicy&) -> LayoutWish {
      const Layout layout = inputs[1].value_or(inputs[2].value_or(Layout()));
      return {{Layout(), layout, layout}, {layout, layout}};
    },
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<MomentumKernel>(s);
    },
    .in_place = [](const Signature&, std::size_t o, std::size_t i) { return i == o + 1; },
}};

class MovingAverageKernel final : public Kernel {
 public:
  explicit MovingAverageKernel(const Signature& s)
      : momentum_(static_cast<float>(s.node.attributes.real("momentum"))),
        elements_(stored_elements(s.outputs[0])) {
    expect_f32(s);
  }
  void run(std::span<std::byte* const> operands) override {
    parallel_for(elements_, kGrain, [&](std::int64_t begin, std::int64_t end) {
      HWY_DYNAMIC_DISPATCH(MovingAverage)
      (momentum_, as<float>(operands[0]) + begin, as<float>(operands[1]) + begin,
       as<float>(operands[2]) + begin, static_cast<std::size_t>(end - begin));
    });
  }

 private:
  float momentum_;
  std::int64_t elements_;
};

const RegisterKernelRule moving_average{{
    .op = "moving_average",
    .layouts = same_layout,
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<MovingAverageKernel>(s);
    },
    .in_place = element_wise_in_place,
}};

}  // namespace
}  // namespace concord::cpu
#endif

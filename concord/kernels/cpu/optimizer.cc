#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/optimizer.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/vector_math-inl.h"

#ifndef CONCORD_KERNELS_CPU_OPTIMIZER_ONCE_
#define CONCORD_KERNELS_CPU_OPTIMIZER_ONCE_
namespace concord::cpu {

// The updates of ops/optimizer.h with everything that is the same for all elements worked out.
// Coupled decay is a term of the gradient, decoupled decay a factor of the parameter; the other one
// is 0, or 1.
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

// A run of elements of one parameter. Outputs may lie over the inputs they replace.
struct SgdRun {
  const float *parameter, *gradient, *momentum;
  float *next_parameter, *next_momentum;  // the momenta are null without momentum
};
struct AdamRun {
  const float *parameter, *gradient, *first, *second;
  float *next_parameter, *next_first, *next_second;
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

V constant(float value) { return hn::Set(D(), value); }

// Calls f(i, load, store) so that it covers [0, count); the last call moves fewer elements.
template <typename F>
void for_each_vector(std::size_t count, F f) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    f([=](const float* x) { return hn::LoadU(d, x + i); },
      [=](V v, float* y) { hn::StoreU(v, d, y + i); });
  }
  if (i == count) return;
  f([=](const float* x) { return load_first(d, x + i, count - i); },
    [=](V v, float* y) { store_first(d, v, y + i, count - i); });
}

void UpdateSgd(const SgdStep& s, const SgdRun& run, std::size_t count) {
  const V rate = constant(-s.learning_rate), decay = constant(s.coupled_decay);
  const V scale = constant(s.gradient_scale), factor = constant(s.parameter_factor);
  const V momentum = constant(s.momentum);
  for_each_vector(count, [&](auto load, auto store) {
    const V p = load(run.parameter);
    V step = hn::MulAdd(decay, p, hn::Mul(scale, load(run.gradient)));
    if (run.momentum != nullptr) {
      const V m = hn::MulAdd(momentum, load(run.momentum), step);
      store(m, run.next_momentum);
      step = s.nesterov ? hn::MulAdd(momentum, m, step) : m;
    }
    store(hn::MulAdd(rate, step, hn::Mul(p, factor)), run.next_parameter);
  });
}

void UpdateAdam(const AdamStep& s, const AdamRun& run, std::size_t count) {
  const V scale = constant(s.gradient_scale), decay = constant(s.coupled_decay);
  const V factor = constant(s.parameter_factor), rate = constant(-s.rate);
  const V beta1 = constant(s.beta1), rest1 = constant(s.one_minus_beta1);
  const V beta2 = constant(s.beta2), rest2 = constant(s.one_minus_beta2);
  const V root_factor = constant(s.root_factor), epsilon = constant(s.epsilon);
  for_each_vector(count, [&](auto load, auto store) {
    const V p = load(run.parameter);
    const V g = hn::MulAdd(decay, p, hn::Mul(scale, load(run.gradient)));
    const V m = hn::MulAdd(beta1, load(run.first), hn::Mul(rest1, g));
    const V v = hn::MulAdd(beta2, load(run.second), hn::Mul(rest2, hn::Mul(g, g)));
    const V denominator = hn::MulAdd(hn::Sqrt(v), root_factor, epsilon);
    store(m, run.next_first);
    store(v, run.next_second);
    store(hn::MulAdd(rate, hn::Div(m, denominator), hn::Mul(p, factor)), run.next_parameter);
  });
}

double SumOfSquares(const float* x, std::size_t count) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const std::size_t lanes = hn::Lanes(d);
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  std::size_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    const auto a = hn::PromoteTo(d, hn::LoadU(df, x + i));
    const auto b = hn::PromoteTo(d, hn::LoadU(df, x + i + lanes));
    sum0 = hn::MulAdd(a, a, sum0);
    sum1 = hn::MulAdd(b, b, sum1);
  }
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
  for (; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

// y = (1 - momentum) * running + momentum * value.
void MovingAverage(float momentum, const float* running, const float* value, float* y,
                   std::size_t count) {
  const V weight = constant(momentum), rest = constant(1 - momentum);
  for_each_vector(count, [&](auto load, auto store) {
    store(hn::MulAdd(weight, load(value), hn::Mul(rest, load(running))), y);
  });
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(UpdateSgd);
HWY_EXPORT(UpdateAdam);
HWY_EXPORT(SumOfSquares);
HWY_EXPORT(MovingAverage);

namespace {

// Several tensors seen as one sequence of elements.
class Sequence {
 public:
  explicit Sequence(std::span<const Operand> operands) {
    for (const Operand& operand : operands) ends_.push_back(total() + stored_elements(operand));
  }
  std::size_t tensors() const { return ends_.size(); }
  std::int64_t total() const { return ends_.empty() ? 0 : ends_.back(); }

  // Calls f(tensor, begin, end) for the pieces of tensors that make up [begin, end) of the
  // sequence.
  template <typename F>
  void for_each_piece(std::int64_t begin, std::int64_t end, F f) const {
    auto tensor = static_cast<std::size_t>(std::upper_bound(ends_.begin(), ends_.end(), begin) -
                                           ends_.begin());
    for (; begin < end; ++tensor) {
      const std::int64_t start = tensor == 0 ? 0 : ends_[tensor - 1];
      const std::int64_t stop = std::min(end, ends_[tensor]);
      if (begin < stop) f(tensor, begin - start, stop - start);
      begin = std::max(begin, stop);
    }
  }

 private:
  std::vector<std::int64_t> ends_;  // where each tensor ends in the sequence
};

// Inputs: `scalars` scalars, then lists of `count` tensors. Outputs follow all inputs.
struct UpdateOperands {
  std::span<std::byte* const> operands;
  std::size_t scalars, count, input_lists;

  float scalar(std::size_t i) const { return *as<float>(operands[i]); }
  float* input(std::size_t list, std::size_t tensor) const {
    return as<float>(operands[scalars + list * count + tensor]);
  }
  float* output(std::size_t list, std::size_t tensor) const {
    return input(input_lists + list, tensor);
  }
};

class SgdUpdate final : public Kernel {
 public:
  SgdUpdate(Sequence parameters, const Attributes& attributes)
      : parameters_(std::move(parameters)),
        momentum_(attributes.real("momentum")),
        weight_decay_(attributes.real("weight_decay")),
        nesterov_(attributes.integer("nesterov") != 0),
        decoupled_(attributes.integer("decoupled") != 0) {}

  void run(std::span<std::byte* const> operands) override {
    const bool has_momentum = momentum_ != 0;
    const UpdateOperands at{operands, 2, parameters_.tensors(), has_momentum ? 3u : 2u};
    const double learning_rate = at.scalar(0);
    const SgdStep step{
        .learning_rate = at.scalar(0),
        .gradient_scale = at.scalar(1),
        .coupled_decay = static_cast<float>(decoupled_ ? 0 : weight_decay_),
        .parameter_factor = static_cast<float>(decoupled_ ? 1 - learning_rate * weight_decay_ : 1),
        .momentum = static_cast<float>(momentum_),
        .nesterov = nesterov_};
    parallel_for(parameters_.total(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      parameters_.for_each_piece(
          begin, end, [&](std::size_t tensor, std::int64_t from, std::int64_t to) {
            const SgdRun run{at.input(0, tensor) + from, at.input(1, tensor) + from,
                             has_momentum ? at.input(2, tensor) + from : nullptr,
                             at.output(0, tensor) + from,
                             has_momentum ? at.output(1, tensor) + from : nullptr};
            HWY_DYNAMIC_DISPATCH(UpdateSgd)(step, run, static_cast<std::size_t>(to - from));
          });
    });
  }

 private:
  Sequence parameters_;
  double momentum_, weight_decay_;
  bool nesterov_, decoupled_;
};

class AdamUpdate final : public Kernel {
 public:
  AdamUpdate(Sequence parameters, const Attributes& attributes)
      : parameters_(std::move(parameters)),
        beta1_(attributes.real("beta1")),
        beta2_(attributes.real("beta2")),
        epsilon_(attributes.real("epsilon")),
        weight_decay_(attributes.real("weight_decay")),
        decoupled_(attributes.integer("decoupled") != 0) {}

  void run(std::span<std::byte* const> operands) override {
    const UpdateOperands at{operands, 3, parameters_.tensors(), 4};
    const AdamStep step = step_of(at.scalar(0), at.scalar(1), at.scalar(2));
    parallel_for(parameters_.total(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      parameters_.for_each_piece(
          begin, end, [&](std::size_t tensor, std::int64_t from, std::int64_t to) {
            const AdamRun run{at.input(0, tensor) + from,  at.input(1, tensor) + from,
                              at.input(2, tensor) + from,  at.input(3, tensor) + from,
                              at.output(0, tensor) + from, at.output(1, tensor) + from,
                              at.output(2, tensor) + from};
            HWY_DYNAMIC_DISPATCH(UpdateAdam)(step, run, static_cast<std::size_t>(to - from));
          });
    });
  }

 private:
  AdamStep step_of(double learning_rate, float gradient_scale, double step_count) const {
    const double bias1 = 1 - std::pow(beta1_, step_count);
    const double bias2 = 1 - std::pow(beta2_, step_count);
    return {
        .gradient_scale = gradient_scale,
        .coupled_decay = static_cast<float>(decoupled_ ? 0 : weight_decay_),
        .parameter_factor = static_cast<float>(decoupled_ ? 1 - learning_rate * weight_decay_ : 1),
        .beta1 = static_cast<float>(beta1_),
        .one_minus_beta1 = static_cast<float>(1 - beta1_),
        .beta2 = static_cast<float>(beta2_),
        .one_minus_beta2 = static_cast<float>(1 - beta2_),
        .rate = static_cast<float>(learning_rate / bias1),
        .root_factor = static_cast<float>(1 / std::sqrt(bias2)),
        .epsilon = static_cast<float>(epsilon_)};
  }

  Sequence parameters_;
  double beta1_, beta2_, epsilon_, weight_decay_;
  bool decoupled_;
};

// Every tensor of a parameter's tuple in the parameter's layout, so that one walk over memory meets
// the same element in all of them.
template <std::size_t scalars>
LayoutWish update_layouts(const Signature& s, std::span<const std::optional<Layout>> inputs,
                          KernelPolicy&) {
  // One of the input lists, the gradients, has no output.
  const std::size_t count = s.inputs.size() - scalars - s.outputs.size();
  LayoutWish wish{std::vector<Layout>(s.inputs.size()), std::vector<Layout>(s.outputs.size())};
  const auto layout_of = [&](std::size_t tensor) {
    for (std::size_t i = scalars + tensor; i < inputs.size(); i += count) {
      if (inputs[i].has_value()) return *inputs[i];
    }
    return Layout();
  };
  for (std::size_t tensor = 0; tensor < count; ++tensor) {
    const Layout layout = layout_of(tensor);
    for (std::size_t i = scalars + tensor; i < s.inputs.size(); i += count) wish.inputs[i] = layout;
    for (std::size_t o = tensor; o < s.outputs.size(); o += count) wish.outputs[o] = layout;
  }
  return wish;
}

// Output list 0 over the parameters, further lists over the momenta or moments.
template <std::size_t scalars>
bool update_in_place(const Signature& s, std::size_t o, std::size_t i) {
  const std::size_t count = s.inputs.size() - scalars - s.outputs.size();
  const std::size_t list = o / count;
  return i == scalars + (list == 0 ? 0 : list + 1) * count + o % count;
}

template <typename Update, std::size_t scalars>
std::unique_ptr<Kernel> make_update(const Signature& s, KernelPolicy&) {
  expect_f32(s);
  const std::size_t count = s.inputs.size() - scalars - s.outputs.size();
  return std::make_unique<Update>(Sequence(std::span(s.inputs).subspan(scalars, count)),
                                  s.node.attributes);
}

const RegisterKernelRule sgd_update{{.op = "sgd_update",
                                     .layouts = update_layouts<2>,
                                     .make = make_update<SgdUpdate, 2>,
                                     .in_place = update_in_place<2>}};
const RegisterKernelRule adam_update{{.op = "adam_update",
                                      .layouts = update_layouts<3>,
                                      .make = make_update<AdamUpdate, 3>,
                                      .in_place = update_in_place<3>}};

// Sums of chunks whose places do not depend on the threads, in double, added up in order.
class SumOfSquaresKernel final : public Kernel {
 public:
  explicit SumOfSquaresKernel(Sequence values) : values_(std::move(values)) {}
  std::size_t scratchpad_bytes() const override {
    return static_cast<std::size_t>(chunks()) * sizeof(double);
  }
  void run(std::span<std::byte* const> operands) override {
    double* sums = chunks() > 0 ? as<double>(operands[values_.tensors() + 1]) : nullptr;
    parallel_for(chunks(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t chunk = begin; chunk < end; ++chunk) {
        sums[chunk] = 0;
        values_.for_each_piece(chunk * kGrain, std::min((chunk + 1) * kGrain, values_.total()),
                               [&](std::size_t tensor, std::int64_t from, std::int64_t to) {
                                 sums[chunk] += HWY_DYNAMIC_DISPATCH(SumOfSquares)(
                                     as<float>(operands[tensor]) + from,
                                     static_cast<std::size_t>(to - from));
                               });
      }
    });
    double sum = 0;
    for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) sum += sums[chunk];
    *as<double>(operands[values_.tensors()]) = sum;
  }

 private:
  std::int64_t chunks() const { return (values_.total() + kGrain - 1) / kGrain; }

  Sequence values_;
};

const RegisterKernelRule sum_of_squares{{
    .op = "sum_of_squares",
    // Padding adds zeros, so any layout will do.
    .layouts = [](const Signature& s, std::span<const std::optional<Layout>> inputs,
                  KernelPolicy&) -> LayoutWish {
      LayoutWish wish{std::vector<Layout>(s.inputs.size()), std::vector<Layout>(1)};
      for (std::size_t i = 0; i < inputs.size(); ++i) wish.inputs[i] = inputs[i].value_or(Layout());
      return wish;
    },
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<SumOfSquaresKernel>(Sequence(s.inputs));
    },
}};

class ClipFactor final : public Kernel {
 public:
  explicit ClipFactor(double max_norm) : max_norm_(max_norm) {}
  void run(std::span<std::byte* const> operands) override {
    const double norm = std::sqrt(*as<double>(operands[0]));
    const double factor = max_norm_ / (norm + 1e-6);
    *as<float>(operands[1]) = static_cast<float>(factor > 1 ? 1 : factor);
  }

 private:
  double max_norm_;
};

const RegisterKernelRule clip_factor{{
    .op = "clip_factor",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<ClipFactor>(s.node.attributes.real("max_norm"));
    },
}};

class MovingAverageKernel final : public Kernel {
 public:
  MovingAverageKernel(float momentum, std::int64_t elements)
      : momentum_(momentum), elements_(elements) {}
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
      expect_f32(s);
      return std::make_unique<MovingAverageKernel>(
          static_cast<float>(s.node.attributes.real("momentum")), stored_elements(s.outputs[0]));
    },
    .in_place = element_wise_in_place,
}};

}  // namespace
}  // namespace concord::cpu
#endif

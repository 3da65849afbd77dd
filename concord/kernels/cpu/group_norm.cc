// Group normalization of [N, C, ...], seen as [N, C, positions]. The gradients of the parameters
// are summed over the positions of each sample first, then over the samples along a binary tree, so
// the bits do not depend on the threads.
#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/group_norm.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/block_sums.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

#ifndef CONCORD_KERNELS_CPU_GROUP_NORM_ONCE_
#define CONCORD_KERNELS_CPU_GROUP_NORM_ONCE_
namespace concord::cpu {

// One group of one sample: `channels` runs of `positions` elements of type T.
template <typename T>
struct NormGroup {
  const T* x;
  const float *gamma, *beta;
  T* y;
  std::int64_t channels, positions;
};

struct NormStatistics {
  float mean, reciprocal;
};

// dgamma and dbeta are those of this sample alone.
template <typename T>
struct NormGroupBackward {
  const T *dy, *x;
  const float* gamma;
  T* dx;
  float *dgamma, *dbeta;
  std::int64_t channels, positions;
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

template <typename T>
NormStatistics normalize_group(const NormGroup<T>& group, double epsilon) {
  const auto elements = static_cast<std::size_t>(group.channels * group.positions);
  const auto count = static_cast<float>(elements);
  Sum sum, squares;
  for_each_vector(elements, [&](auto i, auto n, int k) { sum.add(k, load(group.x + i, n)); });
  const float mean = sum.total() / count;
  for_each_vector(elements, [&](auto i, auto n, int k) {
    const V distance = hn::Sub(load(group.x + i, n, mean), splat(mean));
    squares.add_product(k, distance, distance);
  });
  const auto reciprocal = static_cast<float>(1.0 / std::sqrt(squares.total() / count + epsilon));
  for (std::int64_t c = 0; c < group.channels; ++c) {
    const T* x = group.x + c * group.positions;
    T* y = group.y + c * group.positions;
    const V factor = splat(reciprocal * group.gamma[c]), beta = splat(group.beta[c]);
    for_each_vector(static_cast<std::size_t>(group.positions), [&](auto i, auto n, int) {
      store(hn::MulAdd(hn::Sub(load(x + i, n), splat(mean)), factor, beta), y + i, n);
    });
  }
  return {mean, reciprocal};
}

// dx = r (g - mean of g - n mean of g n) with g = gamma dy and n = (x - mean) r.
template <typename T>
void backpropagate_group(const NormGroupBackward<T>& group, NormStatistics statistics) {
  const auto positions = static_cast<std::size_t>(group.positions);
  const V mean = splat(statistics.mean), reciprocal = splat(statistics.reciprocal);
  const auto normal = [&](const T* x, std::size_t n) {
    return hn::Mul(hn::Sub(load(x, n), mean), reciprocal);
  };
  float mean_g = 0, mean_gn = 0;
  for (std::int64_t c = 0; c < group.channels; ++c) {
    const T* dy = group.dy + c * group.positions;
    const T* x = group.x + c * group.positions;
    Sum dgamma, dbeta;
    for_each_vector(positions, [&](auto i, auto n, int k) {
      const V gradient = load(dy + i, n);
      dgamma.add_product(k, gradient, normal(x + i, n));
      dbeta.add(k, gradient);
    });
    group.dgamma[c] = dgamma.total();
    group.dbeta[c] = dbeta.total();
    mean_g += group.gamma[c] * group.dbeta[c];
    mean_gn += group.gamma[c] * group.dgamma[c];
  }
  mean_g /= static_cast<float>(group.channels * group.positions);
  mean_gn /= static_cast<float>(group.channels * group.positions);
  for (std::int64_t c = 0; c < group.channels; ++c) {
    const T* dy = group.dy + c * group.positions;
    const T* x = group.x + c * group.positions;
    T* dx = group.dx + c * group.positions;
    for_each_vector(positions, [&](auto i, auto n, int) {
      const V g = hn::MulSub(load(dy + i, n), splat(group.gamma[c]), splat(mean_g));
      const V difference = hn::NegMulAdd(normal(x + i, n), splat(mean_gn), g);
      store(hn::Mul(reciprocal, difference), dx + i, n);
    });
  }
}

NormStatistics NormalizeGroup(const NormGroup<float>& group, double epsilon) {
  return normalize_group(group, epsilon);
}
NormStatistics NormalizeGroupBF16(const NormGroup<BF16>& group, double epsilon) {
  return normalize_group(group, epsilon);
}
void BackpropagateGroup(const NormGroupBackward<float>& group, NormStatistics statistics) {
  backpropagate_group(group, statistics);
}
void BackpropagateGroupBF16(const NormGroupBackward<BF16>& group, NormStatistics statistics) {
  backpropagate_group(group, statistics);
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(NormalizeGroup);
HWY_EXPORT(NormalizeGroupBF16);
HWY_EXPORT(BackpropagateGroup);
HWY_EXPORT(BackpropagateGroupBF16);

namespace {

// The groups of all samples.
struct Groups {
  Groups(const Operand& x, std::int64_t groups_of_sample)
      : samples(x.type.shape[0]),
        per_sample(groups_of_sample),
        channels(x.type.shape[1] / groups_of_sample),
        positions(x.type.shape.elements() / (x.type.shape[0] * x.type.shape[1])) {}

  // Where the group's elements begin, and its first channel among all.
  std::int64_t first_element(std::int64_t group) const { return group * channels * positions; }
  std::int64_t first_channel(std::int64_t group) const { return group % per_sample * channels; }

  template <typename F>
  void for_each(F f) const {
    parallel_for(samples * per_sample, std::max<std::int64_t>(1, kGrain / (channels * positions)),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t group = begin; group < end; ++group) f(group);
                 });
  }

  std::int64_t samples, per_sample, channels, positions;
};

// Operands: x, gamma, beta; y, mean, reciprocal.
template <typename T>
class NormalizeGroups final : public Kernel {
 public:
  NormalizeGroups(Groups groups, double epsilon) : groups_(groups), epsilon_(epsilon) {}

  void run(std::span<std::byte* const> operands) override {
    const auto normalize =
        for_type<T>(HWY_DYNAMIC_DISPATCH(NormalizeGroup), HWY_DYNAMIC_DISPATCH(NormalizeGroupBF16));
    groups_.for_each([&](std::int64_t g) {
      const std::int64_t at = groups_.first_element(g), channel = groups_.first_channel(g);
      const NormGroup<T> group{as<T>(operands[0]) + at,
                               as<float>(operands[1]) + channel,
                               as<float>(operands[2]) + channel,
                               as<T>(operands[3]) + at,
                               groups_.channels,
                               groups_.positions};
      const NormStatistics statistics = normalize(group, epsilon_);
      as<float>(operands[4])[g] = statistics.mean;
      as<float>(operands[5])[g] = statistics.reciprocal;
    });
  }

 private:
  Groups groups_;
  double epsilon_;
};

// Operands: dy, x, gamma, mean, reciprocal; dx, dgamma, dbeta; for each sample, dgamma and dbeta.
template <typename T>
class NormalizeGroupsBackward final : public Kernel {
 public:
  explicit NormalizeGroupsBackward(Groups groups)
      : groups_(groups), channels_(groups.per_sample * groups.channels) {}

  std::size_t scratchpad_bytes() const override {
    return static_cast<std::size_t>(groups_.samples * 2 * channels_) * sizeof(float);
  }

  void run(std::span<std::byte* const> operands) override {
    float* sums = as<float>(operands[8]);
    const auto backpropagate = for_type<T>(HWY_DYNAMIC_DISPATCH(BackpropagateGroup),
                                           HWY_DYNAMIC_DISPATCH(BackpropagateGroupBF16));
    groups_.for_each([&](std::int64_t g) {
      const std::int64_t at = groups_.first_element(g), channel = groups_.first_channel(g);
      float* of_sample = sums + g / groups_.per_sample * 2 * channels_;
      const NormGroupBackward<T> group{
          as<T>(operands[0]) + at, as<T>(operands[1]) + at, as<float>(operands[2]) + channel,
          as<T>(operands[5]) + at, of_sample + channel,     of_sample + channels_ + channel,
          groups_.channels,        groups_.positions};
      backpropagate(group, {as<float>(operands[3])[g], as<float>(operands[4])[g]});
    });
    sum_blocks(sums, groups_.samples, 2 * channels_);
    std::copy_n(sums, channels_, as<float>(operands[6]));
    std::copy_n(sums + channels_, channels_, as<float>(operands[7]));
  }

 private:
  Groups groups_;
  std::int64_t channels_;
};

const RegisterKernelRule group_norm{{
    .op = "group_norm",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const Attributes& attributes = s.node.attributes;
      const Groups groups(s.inputs[0], attributes.integer("groups"));
      return with_float_type(s.inputs[0].type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
        return std::make_unique<NormalizeGroups<decltype(zero)>>(groups,
                                                                 attributes.real("epsilon"));
      });
    },
    .in_place = [](const Signature&, std::size_t o, std::size_t i) { return o == 0 && i == 0; },
}};

const RegisterKernelRule group_norm_backward{{
    .op = "group_norm_backward",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const Groups groups(s.inputs[1], s.node.attributes.integer("groups"));
      return with_float_type(s.inputs[1].type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
        return std::make_unique<NormalizeGroupsBackward<decltype(zero)>>(groups);
      });
    },
    .in_place = [](const Signature&, std::size_t o, std::size_t i) { return o == 0 && i <= 1; },
}};

}  // namespace
}  // namespace concord::cpu
#endif

// Batch norm in training (Ioffe and Szegedy 2015), forward and backward, with the ReLU after it and
// what is added before that, where the op holds them. Each direction walks twice over the images,
// a few channels at a time (channel_groups.h): for their sums, then for the result. Over all leaves
// of a step the two walks are ops of their own, between which the leaves meet.
#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/batch_norm.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/kernels/cpu/channel_groups.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

#ifndef CONCORD_KERNELS_CPU_BATCH_NORM_ONCE_
#define CONCORD_KERNELS_CPU_BATCH_NORM_ONCE_
namespace concord::cpu {

using Run = ChannelGroups::Run;

// Images of type T. y = (x - mean) slope + beta, plus the addend, at least 0 with relu.
template <typename T>
struct ForwardImages {
  const T *x, *addend;  // addend: null where nothing is added
  T* y;
  bool relu;
};

// g is dy where the activation let y through. dx = factor (g - mean_g - (x - mean) mean_gx).
template <typename T>
struct BackwardImages {
  const T *dy, *x, *y;  // y: null without relu
  T *dx, *g;            // g: null where nobody else reads it
};

// Of the channels of a group.
struct Affine {
  const float *mean, *slope, *beta;
};
struct GradientSums {
  const float* mean;
  float *g, *gx;  // of g and of g (x - mean)
};
struct GradientMap {
  const float *mean, *factor, *mean_g, *mean_gx;
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

// A vector of neighbouring channels from channel c of a group on: whole, or the n that are left.
struct Whole {
  std::size_t c;
  template <typename T>
  HWY_INLINE V read(const T* data) const {
    return load_vector(D(), data);
  }
  template <typename T>
  HWY_INLINE void write(V v, T* data) const {
    store_vector(D(), v, data);
  }
};
struct Rest {
  std::size_t c, n;
  template <typename T>
  HWY_INLINE V read(const T* data) const {
    return load_first(D(), data, n, 0);
  }
  template <typename T>
  HWY_INLINE void write(V v, T* data) const {
    store_first(D(), v, data, n);
  }
};

// Calls f with each vector of the group.
template <typename F>
HWY_INLINE void for_each_vector_of(const Run& run, F f) {
  const std::size_t lanes = hn::Lanes(D());
  std::size_t c = 0;
  for (; c + lanes <= run.channels; c += lanes) f(Whole{c});
  if (c < run.channels) f(Rest{c, run.channels - c});
}

// Calls f(at) for each pixel, with the place of its channel c.
template <typename F>
HWY_INLINE void for_each_pixel(const Run& run, std::size_t c, F f) {
  std::int64_t at = run.offset + static_cast<std::int64_t>(c);
  for (std::int64_t pixel = 0; pixel < run.pixels; ++pixel, at += run.stride) f(at);
}

// The sum of terms(at) over the pixels, kTerms terms of each, added to sums[...] at channel c. Four
// sums of each take turns, so that they do not wait for each other.
template <int kTerms, typename Channels, typename F>
HWY_INLINE void add_terms(const Run& run, Channels channels, float* const (&sums)[kTerms],
                          F terms) {
  V parts[4][kTerms];
  for (int t = 0; t < kTerms; ++t) {
    parts[0][t] = channels.read(sums[t] + channels.c);
    parts[1][t] = parts[2][t] = parts[3][t] = hn::Zero(D());
  }
  std::int64_t at = run.offset + static_cast<std::int64_t>(channels.c), pixel = 0;
  for (; pixel + 4 <= run.pixels; pixel += 4, at += 4 * run.stride) {
    terms(at, parts[0]);
    terms(at + run.stride, parts[1]);
    terms(at + 2 * run.stride, parts[2]);
    terms(at + 3 * run.stride, parts[3]);
  }
  for (; pixel < run.pixels; ++pixel, at += run.stride) terms(at, parts[0]);
  for (int t = 0; t < kTerms; ++t) {
    const V sum = hn::Add(hn::Add(parts[0][t], parts[1][t]), hn::Add(parts[2][t], parts[3][t]));
    channels.write(sum, sums[t] + channels.c);
  }
}

// sums += x.
template <typename T>
void add_values(const T* x, const Run& run, float* sums) {
  for_each_vector_of(run, [&](auto channels) {
    add_terms<1>(
        run, channels, {sums}, [&](std::int64_t at, V(&sum)[1]) __attribute__((always_inline)) {
          sum[0] = hn::Add(sum[0], channels.read(x + at));
        });
  });
}

// sums += (x - mean)^2.
template <typename T>
void add_squares(const T* x, const Run& run, const float* means, float* sums) {
  for_each_vector_of(run, [&](auto channels) {
    const V mean = channels.read(means + channels.c);
    add_terms<1>(
        run, channels, {sums}, [&](std::int64_t at, V(&sum)[1]) __attribute__((always_inline)) {
          const V distance = hn::Sub(channels.read(x + at), mean);
          sum[0] = hn::MulAdd(distance, distance, sum[0]);
        });
  });
}

template <bool kAdds, bool kRelu, typename T>
HWY_INLINE void normalize_as(const ForwardImages<T>& images, const Run& run, const Affine& affine) {
  for_each_vector_of(run, [&](auto channels) {
    const V mean = channels.read(affine.mean + channels.c);
    const V slope = channels.read(affine.slope + channels.c);
    const V beta = channels.read(affine.beta + channels.c);
    for_each_pixel(run, channels.c, [&](std::int64_t at) {
      V y = hn::MulAdd(hn::Sub(channels.read(images.x + at), mean), slope, beta);
      if constexpr (kAdds) y = hn::Add(y, channels.read(images.addend + at));
      if constexpr (kRelu) y = hn::Max(y, hn::Zero(D()));
      channels.write(y, images.y + at);
    });
  });
}

template <typename T>
void normalize(const ForwardImages<T>& images, const Run& run, const Affine& affine) {
  if (images.addend != nullptr) return normalize_as<true, true>(images, run, affine);
  if (images.relu) return normalize_as<false, true>(images, run, affine);
  normalize_as<false, false>(images, run, affine);
}

template <bool kRelu, typename T, typename Channels>
HWY_INLINE V passed_on(const BackwardImages<T>& images, Channels channels, std::int64_t at) {
  const V dy = channels.read(images.dy + at);
  if constexpr (!kRelu) return dy;
  return hn::IfThenElseZero(hn::Gt(channels.read(images.y + at), hn::Zero(D())), dy);
}

// Adds to the sums; writes g where it is wanted.
template <bool kRelu, bool kKeeps, typename T>
HWY_INLINE void add_gradients_as(const BackwardImages<T>& images, const Run& run,
                                 const GradientSums& sums) {
  for_each_vector_of(run, [&](auto channels) {
    const V mean = channels.read(sums.mean + channels.c);
    add_terms<2>(
        run, channels,
        {sums.g, sums.gx}, [&](std::int64_t at, V(&sum)[2]) __attribute__((always_inline)) {
          const V g = passed_on<kRelu>(images, channels, at);
          if constexpr (kKeeps) channels.write(g, images.g + at);
          sum[0] = hn::Add(sum[0], g);
          sum[1] = hn::MulAdd(g, hn::Sub(channels.read(images.x + at), mean), sum[1]);
        });
  });
}

template <typename T>
void add_gradients(const BackwardImages<T>& images, const Run& run, const GradientSums& sums) {
  if (images.g != nullptr) return add_gradients_as<true, true>(images, run, sums);
  if (images.y != nullptr) return add_gradients_as<true, false>(images, run, sums);
  add_gradients_as<false, false>(images, run, sums);
}

// Reads g where the first pass has kept it.
template <bool kRelu, bool kKept, typename T>
HWY_INLINE void descend_as(const BackwardImages<T>& images, const Run& run,
                           const GradientMap& map) {
  for_each_vector_of(run, [&](auto channels) {
    const V mean = channels.read(map.mean + channels.c);
    const V factor = channels.read(map.factor + channels.c);
    const V mean_g = channels.read(map.mean_g + channels.c);
    const V mean_gx = channels.read(map.mean_gx + channels.c);
    for_each_pixel(run, channels.c, [&](std::int64_t at) {
      V g;
      if constexpr (kKept) {
        g = channels.read(images.g + at);
      } else {
        g = passed_on<kRelu>(images, channels, at);
      }
      const V distance = hn::Sub(channels.read(images.x + at), mean);
      const V slope = hn::NegMulAdd(distance, mean_gx, hn::Sub(g, mean_g));
      channels.write(hn::Mul(factor, slope), images.dx + at);
    });
  });
}

template <typename T>
void descend(const BackwardImages<T>& images, const Run& run, const GradientMap& map) {
  if (images.g != nullptr) return descend_as<true, true>(images, run, map);
  if (images.y != nullptr) return descend_as<true, false>(images, run, map);
  descend_as<false, false>(images, run, map);
}

void AddValues(const float* x, const Run& run, float* sums) { add_values(x, run, sums); }
void AddValuesBF16(const BF16* x, const Run& run, float* sums) { add_values(x, run, sums); }
void AddSquares(const float* x, const Run& run, const float* means, float* sums) {
  add_squares(x, run, means, sums);
}
void AddSquaresBF16(const BF16* x, const Run& run, const float* means, float* sums) {
  add_squares(x, run, means, sums);
}
void Normalize(const ForwardImages<float>& images, const Run& run, const Affine& affine) {
  normalize(images, run, affine);
}
void NormalizeBF16(const ForwardImages<BF16>& images, const Run& run, const Affine& affine) {
  normalize(images, run, affine);
}
void AddGradients(const BackwardImages<float>& images, const Run& run, const GradientSums& sums) {
  add_gradients(images, run, sums);
}
void AddGradientsBF16(const BackwardImages<BF16>& images, const Run& run,
                      const GradientSums& sums) {
  add_gradients(images, run, sums);
}
void Descend(const BackwardImages<float>& images, const Run& run, const GradientMap& map) {
  descend(images, run, map);
}
void DescendBF16(const BackwardImages<BF16>& images, const Run& run, const GradientMap& map) {
  descend(images, run, map);
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace concord::cpu {

HWY_EXPORT(AddValues);
HWY_EXPORT(AddValuesBF16);
HWY_EXPORT(AddSquares);
HWY_EXPORT(AddSquaresBF16);
HWY_EXPORT(Normalize);
HWY_EXPORT(NormalizeBF16);
HWY_EXPORT(AddGradients);
HWY_EXPORT(AddGradientsBF16);
HWY_EXPORT(Descend);
HWY_EXPORT(DescendBF16);

namespace {

std::size_t floats(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); }

bool has_relu(const Signature& s) { return s.node.attributes.integer("relu") != 0; }
double epsilon_of(const Signature& s) { return s.node.attributes.real("epsilon"); }

// What all share: two sums for each part and channel, and three numbers for each
// channel, padding included, in the scratchpad.
class BatchNormKernel : public Kernel {
 public:
  BatchNormKernel(const ChannelGroups& groups, double epsilon, bool relu = false)
      : relu_(relu), epsilon_(epsilon), groups_(groups), stored_(groups.stored_channels()) {}

  std::size_t scratchpad_bytes() const final { return floats((2 * groups_.parts() + 3) * stored_); }

 protected:
  // Zeroes: what belongs to padding stays so.
  void use_scratchpad(std::byte* scratchpad) {
    sums_ = as<float>(scratchpad);
    numbers_ = sums_ + 2 * groups_.parts() * stored_;
    std::fill_n(sums_, (2 * groups_.parts() + 3) * stored_, 0.0f);
  }
  float* sum(int which, std::int64_t part, std::int64_t channel) const {
    return sums_ + (2 * part + which) * stored_ + channel;
  }
  float* number(int which, std::int64_t channel) const {
    return numbers_ + which * stored_ + channel;
  }
  // Adds up the parts of a channel along a binary tree, into the first.
  float& join_parts(int which, std::int64_t c) const {
    const std::int64_t parts = groups_.parts();
    for (std::int64_t step = 1; step < parts; step *= 2) {
      for (std::int64_t part = 0; part + step < parts; part += 2 * step) {
        *sum(which, part, c) += *sum(which, part + step, c);
      }
    }
    return *sum(which, 0, c);
  }
  // 1 / the deviation.
  double reciprocal(float variance) const { return 1 / std::sqrt(variance + epsilon_); }

  const bool relu_;
  const double epsilon_;
  const ChannelGroups groups_;
  const std::int64_t stored_;

 private:
  float *sums_ = nullptr, *numbers_ = nullptr;
};

// Operands: x, gamma, beta, the addend if any; y, mean, variance; scratchpad.
template <typename T>
class BatchNorm final : public BatchNormKernel {
 public:
  BatchNorm(const Signature& s, const ChannelGroups& groups)
      : BatchNormKernel(groups, epsilon_of(s), has_relu(s)),
        channels_(s.inputs[0].type.shape[1]),
        adds_(s.inputs.size() == 4) {}

  void run(std::span<std::byte* const> operands) override {
    const std::size_t outputs = adds_ ? 4 : 3;
    const ForwardImages<T> images{as<T>(operands[0]), adds_ ? as<T>(operands[3]) : nullptr,
                                  as<T>(operands[outputs]), relu_};
    const float *gamma = as<float>(operands[1]), *beta = as<float>(operands[2]);
    float *mean = as<float>(operands[outputs + 1]), *variance = as<float>(operands[outputs + 2]);
    use_scratchpad(operands[outputs + 3]);
    std::copy_n(beta, channels_, number(kBeta, 0));
    groups_.in_two_passes(
        [&](std::int64_t group, std::int64_t part) { measure(images, group, part); },
        [&](std::int64_t c) {
          if (c < channels_) settle(c, gamma[c], mean[c], variance[c]);
        },
        [&](std::int64_t group, std::int64_t part) {
          const std::int64_t channel = groups_.first_channel(group);
          const Affine affine{number(kMean, channel), number(kSlope, channel),
                              number(kBeta, channel)};
          const auto normalize =
              for_type<T>(HWY_DYNAMIC_DISPATCH(Normalize), HWY_DYNAMIC_DISPATCH(NormalizeBF16));
          groups_.for_each_run(group, part,
                               [&](const Run& run) { normalize(images, run, affine); });
        });
  }

 private:
  enum Number { kMean, kSlope, kBeta };

  // The mean of each channel of a part, and the sum of the squared distances from it.
  void measure(const ForwardImages<T>& images, std::int64_t group, std::int64_t part) const {
    const std::int64_t channel = groups_.first_channel(group);
    float *mean = sum(0, part, channel), *squares = sum(1, part, channel);
    const auto add_values =
        for_type<T>(HWY_DYNAMIC_DISPATCH(AddValues), HWY_DYNAMIC_DISPATCH(AddValuesBF16));
    const auto add_squares =
        for_type<T>(HWY_DYNAMIC_DISPATCH(AddSquares), HWY_DYNAMIC_DISPATCH(AddSquaresBF16));
    groups_.for_each_run(group, part, [&](const Run& run) { add_values(images.x, run, mean); });
    const std::int64_t end = groups_.first_channel(group + 1);
    const auto count = static_cast<float>(groups_.pixels_of(part));
    for (std::int64_t c = channel; c < end; ++c) mean[c - channel] /= count;
    groups_.for_each_run(group, part,
                         [&](const Run& run) { add_squares(images.x, run, mean, squares); });
  }

  // Joins the parts of a channel one by one (Chan, Golub, LeVeque 1979, equation 2.1).
  void settle(std::int64_t c, float gamma, float& mean_of_all, float& variance) const {
    double mean = 0, squares = 0, count = 0;
    for (std::int64_t part = 0; part < groups_.parts(); ++part) {
      const auto more = static_cast<double>(groups_.pixels_of(part));
      const double distance = *sum(0, part, c) - mean;
      mean += distance * more / (count + more);
      squares += *sum(1, part, c) + distance * distance * count * more / (count + more);
      count += more;
    }
    mean_of_all = *number(kMean, c) = static_cast<float>(mean);
    variance = static_cast<float>(squares / count);
    *number(kSlope, c) = static_cast<float>(gamma / std::sqrt(squares / count + epsilon_));
  }

  const std::int64_t channels_;
  const bool adds_;
};

// Operands: dy, x, gamma, mean, variance, y with relu; dx, dgamma, dbeta, the addend's gradient if
// there is one; scratchpad.
template <typename T>
class BatchNormBackward final : public BatchNormKernel {
 public:
  BatchNormBackward(const Signature& s, const ChannelGroups& groups)
      : BatchNormKernel(groups, epsilon_of(s), has_relu(s)),
        channels_(s.inputs[1].type.shape[1]),
        adds_(s.outputs.size() == 4) {}

  void run(std::span<std::byte* const> operands) override {
    const std::size_t outputs = relu_ ? 6 : 5;
    const BackwardImages<T> images{as<T>(operands[0]), as<T>(operands[1]),
                                   relu_ ? as<T>(operands[5]) : nullptr, as<T>(operands[outputs]),
                                   adds_ ? as<T>(operands[outputs + 3]) : nullptr};
    const float *gamma = as<float>(operands[2]), *variance = as<float>(operands[4]);
    float *dgamma = as<float>(operands[outputs + 1]), *dbeta = as<float>(operands[outputs + 2]);
    use_scratchpad(operands[outputs + (adds_ ? 4 : 3)]);
    std::copy_n(as<float>(operands[3]), channels_, number(kMean, 0));
    groups_.in_two_passes(
        [&](std::int64_t group, std::int64_t part) {
          const std::int64_t channel = groups_.first_channel(group);
          const GradientSums sums{number(kMean, channel), sum(0, part, channel),
                                  sum(1, part, channel)};
          const auto add = for_type<T>(HWY_DYNAMIC_DISPATCH(AddGradients),
                                       HWY_DYNAMIC_DISPATCH(AddGradientsBF16));
          groups_.for_each_run(group, part, [&](const Run& run) { add(images, run, sums); });
        },
        [&](std::int64_t c) {
          if (c >= channels_) return;
          settle(c, gamma[c], reciprocal(variance[c]), dgamma[c], dbeta[c]);
        },
        [&](std::int64_t group, std::int64_t part) {
          const std::int64_t channel = groups_.first_channel(group);
          const GradientMap map{number(kMean, channel), number(kFactor, channel),
                                sum(0, 0, channel), sum(1, 0, channel)};
          const auto descend =
              for_type<T>(HWY_DYNAMIC_DISPATCH(Descend), HWY_DYNAMIC_DISPATCH(DescendBF16));
          groups_.for_each_run(group, part, [&](const Run& run) { descend(images, run, map); });
        });
  }

 private:
  enum Number { kMean, kFactor };

  // Adds up a channel, and leaves what dx needs in the sums of its first part.
  void settle(std::int64_t c, float gamma, double reciprocal, float& dgamma, float& dbeta) const {
    const auto count = static_cast<double>(groups_.pixels());
    float &g = join_parts(0, c), &gx = join_parts(1, c);
    dbeta = g;
    dgamma = static_cast<float>(gx * reciprocal);
    *number(kFactor, c) = static_cast<float>(gamma * reciprocal);
    g = static_cast<float>(g / count);
    gx = static_cast<float>(gx * reciprocal * reciprocal / count);
  }

  const std::int64_t channels_;
  const bool adds_;
};

// Operands: x, mean if any; the sum; scratchpad.
template <typename T>
class ChannelSum final : public BatchNormKernel {
 public:
  ChannelSum(const Signature& s, const ChannelGroups& groups)
      : BatchNormKernel(groups, 0),
        channels_(s.inputs[0].type.shape[1]),
        is_centered_(s.inputs.size() == 2) {}

  void run(std::span<std::byte* const> operands) override {
    const T* x = as<T>(operands[0]);
    float* result = as<float>(operands[is_centered_ ? 2 : 1]);
    use_scratchpad(operands[is_centered_ ? 3 : 2]);
    if (is_centered_) std::copy_n(as<float>(operands[1]), channels_, number(0, 0));
    const auto add_values =
        for_type<T>(HWY_DYNAMIC_DISPATCH(AddValues), HWY_DYNAMIC_DISPATCH(AddValuesBF16));
    const auto add_squares =
        for_type<T>(HWY_DYNAMIC_DISPATCH(AddSquares), HWY_DYNAMIC_DISPATCH(AddSquaresBF16));
    groups_.in_one_pass([&](std::int64_t group, std::int64_t part) {
      const std::int64_t channel = groups_.first_channel(group);
      float* const sums = sum(0, part, channel);
      groups_.for_each_run(group, part, [&](const Run& run) {
        if (is_centered_) return add_squares(x, run, number(0, channel), sums);
        add_values(x, run, sums);
      });
    });
    for (std::int64_t c = 0; c < channels_; ++c) result[c] = join_parts(0, c);
  }

 private:
  const std::int64_t channels_;
  const bool is_centered_;
};

// Operands: x, gamma, beta, mean, variance, share; y; scratchpad.
template <typename T>
class BatchNormOverLeaves final : public BatchNormKernel {
 public:
  BatchNormOverLeaves(const Signature& s, const ChannelGroups& groups)
      : BatchNormKernel(groups, epsilon_of(s)), channels_(s.inputs[0].type.shape[1]) {}

  void run(std::span<std::byte* const> operands) override {
    const ForwardImages<T> images{as<T>(operands[0]), nullptr, as<T>(operands[6]), false};
    const float *gamma = as<float>(operands[1]), *variance = as<float>(operands[4]);
    use_scratchpad(operands[7]);
    std::copy_n(as<float>(operands[3]), channels_, number(kMean, 0));
    std::copy_n(as<float>(operands[2]), channels_, number(kBeta, 0));
    for (std::int64_t c = 0; c < channels_; ++c) {
      *number(kSlope, c) = static_cast<float>(gamma[c] * reciprocal(variance[c]));
    }
    const auto normalize =
        for_type<T>(HWY_DYNAMIC_DISPATCH(Normalize), HWY_DYNAMIC_DISPATCH(NormalizeBF16));
    groups_.in_one_pass([&](std::int64_t group, std::int64_t part) {
      const std::int64_t channel = groups_.first_channel(group);
      const Affine affine{number(kMean, channel), number(kSlope, channel), number(kBeta, channel)};
      groups_.for_each_run(group, part, [&](const Run& run) { normalize(images, run, affine); });
    });
  }

 private:
  enum Number { kMean, kSlope, kBeta };
  const std::int64_t channels_;
};

// Operands: dy, x, mean, variance; dgamma, dbeta; scratchpad.
template <typename T>
class BatchNormOverLeavesSums final : public BatchNormKernel {
 public:
  BatchNormOverLeavesSums(const Signature& s, const ChannelGroups& groups)
      : BatchNormKernel(groups, epsilon_of(s)), channels_(s.inputs[1].type.shape[1]) {}

  void run(std::span<std::byte* const> operands) override {
    const BackwardImages<T> images{as<T>(operands[0]), as<T>(operands[1]), nullptr, nullptr,
                                   nullptr};
    const float* variance = as<float>(operands[3]);
    float *dgamma = as<float>(operands[4]), *dbeta = as<float>(operands[5]);
    use_scratchpad(operands[6]);
    std::copy_n(as<float>(operands[2]), channels_, number(0, 0));
    const auto add =
        for_type<T>(HWY_DYNAMIC_DISPATCH(AddGradients), HWY_DYNAMIC_DISPATCH(AddGradientsBF16));
    groups_.in_one_pass([&](std::int64_t group, std::int64_t part) {
      const std::int64_t channel = groups_.first_channel(group);
      const GradientSums sums{number(0, channel), sum(0, part, channel), sum(1, part, channel)};
      groups_.for_each_run(group, part, [&](const Run& run) { add(images, run, sums); });
    });
    for (std::int64_t c = 0; c < channels_; ++c) {
      dbeta[c] = join_parts(0, c);
      dgamma[c] = static_cast<float>(join_parts(1, c) * reciprocal(variance[c]));
    }
  }

 private:
  const std::int64_t channels_;
};

// Operands: dy, x, gamma, mean, variance, and dgamma and dbeta over M; dx; scratchpad.
template <typename T>
class BatchNormOverLeavesBackward final : public BatchNormKernel {
 public:
  BatchNormOverLeavesBackward(const Signature& s, const ChannelGroups& groups)
      : BatchNormKernel(groups, epsilon_of(s)), channels_(s.inputs[1].type.shape[1]) {}

  void run(std::span<std::byte* const> operands) override {
    const BackwardImages<T> images{as<T>(operands[0]), as<T>(operands[1]), nullptr,
                                   as<T>(operands[7]), nullptr};
    const float *gamma = as<float>(operands[2]), *variance = as<float>(operands[4]);
    const float* mean_dgamma = as<float>(operands[5]);
    use_scratchpad(operands[8]);
    std::copy_n(as<float>(operands[3]), channels_, number(kMean, 0));
    std::copy_n(as<float>(operands[6]), channels_, sum(0, 0, 0));
    for (std::int64_t c = 0; c < channels_; ++c) {
      *number(kFactor, c) = static_cast<float>(gamma[c] * reciprocal(variance[c]));
      *number(kMeanGx, c) = static_cast<float>(mean_dgamma[c] * reciprocal(variance[c]));
    }
    const auto descend =
        for_type<T>(HWY_DYNAMIC_DISPATCH(Descend), HWY_DYNAMIC_DISPATCH(DescendBF16));
    groups_.in_one_pass([&](std::int64_t group, std::int64_t part) {
      const std::int64_t channel = groups_.first_channel(group);
      const GradientMap map{number(kMean, channel), number(kFactor, channel), sum(0, 0, channel),
                            number(kMeanGx, channel)};
      groups_.for_each_run(group, part, [&](const Run& run) { descend(images, run, map); });
    });
  }

 private:
  enum Number { kMean, kFactor, kMeanGx };
  const std::int64_t channels_;
};

// Images in one layout, that of input kFirst where it suits; vectors of channels as they are.
template <std::size_t kFirst>
LayoutWish wish_of(const Signature& s, std::span<const std::optional<Layout>> inputs,
                   KernelPolicy&) {
  const TensorType& image = s.inputs[kFirst].type;
  std::vector<std::optional<Layout>> given = {inputs[kFirst]};
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (s.inputs[i].type == image) given.push_back(inputs[i]);
  }
  const Layout layout = layout_by_channels(image, given);
  const auto of = [&](const Operand& operand) { return operand.type == image ? layout : Layout(); };
  LayoutWish wish;
  for (const Operand& operand : s.inputs) wish.inputs.push_back(of(operand));
  for (const Operand& operand : s.outputs) wish.outputs.push_back(of(operand));
  return wish;
}

// KernelOf<T>: of images of type T, which input kFirst is one of.
template <template <typename> typename KernelOf, std::size_t kFirst>
std::unique_ptr<Kernel> make_of(const Signature& s, KernelPolicy&) {
  const Operand& image = s.inputs[kFirst];
  const std::optional<ChannelGroups> groups = ChannelGroups::of(image);
  CONCORD_CHECK(groups, "layer {} in layout {}", s.node.name, to_string(image.layout));
  return with_float_type(image.type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
    return std::make_unique<KernelOf<decltype(zero)>>(s, *groups);
  });
}

bool over_an_image(const Signature& s, std::size_t o, std::size_t i) {
  return o == 0 && element_wise_in_place(s, o, i);
}

const RegisterKernelRule batch_norm{{
    .op = "batch_norm",
    .layouts = wish_of<0>,
    .make = make_of<BatchNorm, 0>,
    .in_place = over_an_image,
}};

// dx may lie over any of the images, which the second pass reads where it writes; the addend's
// gradient, which the first pass writes, not over x.
const RegisterKernelRule batch_norm_backward{{
    .op = "batch_norm_backward",
    .layouts = wish_of<1>,
    .make = make_of<BatchNormBackward, 1>,
    .in_place =
        [](const Signature& s, std::size_t o, std::size_t i) {
          return (o == 0 || (o == 3 && i != 1)) && element_wise_in_place(s, o, i);
        },
}};

const RegisterKernelRule channel_sum{
    {.op = "channel_sum", .layouts = wish_of<0>, .make = make_of<ChannelSum, 0>}};
const RegisterKernelRule batch_norm_over_leaves{{.op = "batch_norm_over_leaves",
                                                 .layouts = wish_of<0>,
                                                 .make = make_of<BatchNormOverLeaves, 0>,
                                                 .in_place = over_an_image}};
const RegisterKernelRule batch_norm_over_leaves_sums{{.op = "batch_norm_over_leaves_sums",
                                                      .layouts = wish_of<1>,
                                                      .make = make_of<BatchNormOverLeavesSums, 1>}};
const RegisterKernelRule batch_norm_over_leaves_backward{
    {.op = "batch_norm_over_leaves_backward",
     .layouts = wish_of<1>,
     .make = make_of<BatchNormOverLeavesBackward, 1>,
     .in_place = over_an_image}};

}  // namespace
}  // namespace concord::cpu
#endif

// Batch norm backward (Ioffe and Szegedy 2015), with the ReLU after it where the op holds both. Two
// passes over the images: the sums of each channel, then dx. Channels are taken in groups that lie
// next to each other, few groups at a time, so that the second pass finds in the cache what the
// first has read. The pixels of a group are cut into parts by the shape alone and their sums are
// added along a binary tree: the bits do not depend on the threads.
#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/batch_norm_backward.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/block_sums.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

#ifndef CONCORD_KERNELS_CPU_BATCH_NORM_BACKWARD_ONCE_
#define CONCORD_KERNELS_CPU_BATCH_NORM_BACKWARD_ONCE_
namespace concord::cpu {

// Pixels of one group of neighbouring channels, `stride` elements of type T apart.
template <typename T>
struct PixelRun {
  const T *dy, *x, *y;  // y: null without relu
  T* dx;
  std::int64_t pixels, stride;
  std::size_t channels;
};

// Of the channels of a group: sums over pixels of g and of g (x - mean), g being dy where the
// activation let y through.
struct GroupSums {
  const float* mean;
  float *g, *gx;
};

// dx = factor (g - mean_g - (x - mean) mean_gx).
struct GroupSlope {
  const float *mean, *factor, *mean_g, *mean_gx;
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

template <typename T>
HWY_INLINE V passed_on(const PixelRun<T>& run, std::int64_t at, std::size_t n) {
  const V dy = load(run.dy + at, n);
  if (run.y == nullptr) return dy;
  return hn::IfThenElseZero(hn::Gt(load(run.y + at, n), hn::Zero(D())), dy);
}

// Adds to the sums.
template <typename T>
void sum_pixels(const PixelRun<T>& run, const GroupSums& sums) {
  const std::size_t lanes = hn::Lanes(D());
  for (std::size_t c = 0; c < run.channels; c += lanes) {
    const std::size_t n = std::min(lanes, run.channels - c);
    const V mean = load(sums.mean + c, n);
    V g0 = load(sums.g + c, n), gx0 = load(sums.gx + c, n);
    V g1 = hn::Zero(D()), gx1 = g1, g2 = g1, gx2 = g1, g3 = g1, gx3 = g1;
    const auto add = [&](std::int64_t pixel, V& g, V& gx) {
      const std::int64_t at = pixel * run.stride + static_cast<std::int64_t>(c);
      const V gradient = passed_on(run, at, n);
      g = hn::Add(g, gradient);
      gx = hn::MulAdd(gradient, hn::Sub(load(run.x + at, n), mean), gx);
    };
    std::int64_t pixel = 0;
    for (; pixel + 4 <= run.pixels; pixel += 4) {
      add(pixel, g0, gx0);
      add(pixel + 1, g1, gx1);
      add(pixel + 2, g2, gx2);
      add(pixel + 3, g3, gx3);
    }
    for (; pixel < run.pixels; ++pixel) add(pixel, g0, gx0);
    store(hn::Add(hn::Add(g0, g1), hn::Add(g2, g3)), sums.g + c, n);
    store(hn::Add(hn::Add(gx0, gx1), hn::Add(gx2, gx3)), sums.gx + c, n);
  }
}

template <typename T>
void descend_pixels(const PixelRun<T>& run, const GroupSlope& slope) {
  const std::size_t lanes = hn::Lanes(D());
  for (std::size_t c = 0; c < run.channels; c += lanes) {
    const std::size_t n = std::min(lanes, run.channels - c);
    const V mean = load(slope.mean + c, n), factor = load(slope.factor + c, n);
    const V mean_g = load(slope.mean_g + c, n), mean_gx = load(slope.mean_gx + c, n);
    for (std::int64_t pixel = 0; pixel < run.pixels; ++pixel) {
      const std::int64_t at = pixel * run.stride + static_cast<std::int64_t>(c);
      const V distance = hn::Sub(load(run.x + at, n), mean);
      const V g = hn::Sub(passed_on(run, at, n), mean_g);
      store(hn::Mul(factor, hn::NegMulAdd(distance, mean_gx, g)), run.dx + at, n);
    }
  }
}

void SumPixels(const PixelRun<float>& run, const GroupSums& sums) { sum_pixels(run, sums); }
void SumPixelsBF16(const PixelRun<BF16>& run, const GroupSums& sums) { sum_pixels(run, sums); }
void DescendPixels(const PixelRun<float>& run, const GroupSlope& slope) {
  descend_pixels(run, slope);
}
void DescendPixelsBF16(const PixelRun<BF16>& run, const GroupSlope& slope) {
  descend_pixels(run, slope);
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <optional>
#include <utility>

#include "concord/kernels/cpu/onednn.h"

namespace concord::cpu {

HWY_EXPORT(SumPixels);
HWY_EXPORT(SumPixelsBF16);
HWY_EXPORT(DescendPixels);
HWY_EXPORT(DescendPixelsBF16);

namespace {

// How images [N, C, H, W] or vectors [N, C] lie in memory, where neighbouring channels do: as
// groups of channels, all of one width but the last.
struct ChannelGroups {
  static std::optional<ChannelGroups> of(const Operand& operand);

  std::int64_t channels = 0, width = 0, groups = 0;  // channels: padding included
  std::int64_t images = 0, pixels = 0;
  std::int64_t image_stride = 0, pixel_stride = 0, group_stride = 0;  // in elements
};

// nullopt where neighbouring channels lie apart.
std::optional<ChannelGroups> ChannelGroups::of(const Operand& operand) {
  constexpr std::int64_t kWidth = 16;  // of channels-last images: a vector of AVX-512
  const Shape& shape = operand.type.shape;
  const Layout& layout = operand.layout;
  ChannelGroups result{.channels = shape[1],
                       .width = kWidth,
                       .images = shape[0],
                       .pixels = shape.elements() / (shape[0] * shape[1]),
                       .group_stride = kWidth};
  if (layout.is_row_major()) {
    if (result.channels != 1 && result.pixels != 1) return std::nullopt;
    result.pixel_stride = result.channels;
    result.image_stride = result.channels * result.pixels;
  } else {
    result.image_stride = layout.strides()[0];
    result.pixel_stride = layout.strides()[3];
    if (layout.strides()[2] != shape[3] * layout.strides()[3]) return std::nullopt;
    if (layout.blocks().empty()) {
      if (layout.strides()[1] != 1) return std::nullopt;
    } else {
      if (layout.blocks().size() != 1 || layout.blocks()[0].dim != 1) return std::nullopt;
      result.channels = layout.padded()[1];
      result.width = layout.blocks()[0].size;
      result.group_stride = layout.strides()[1];
    }
  }
  if (result.image_stride == result.pixels * result.pixel_stride) {  // images follow as one
    result.pixels *= std::exchange(result.images, 1);
  }
  result.groups = (result.channels + result.width - 1) / result.width;
  return result;
}

// A layout in which neighbouring channels lie together: that of x, of dy, of y, or a convolution's.
Layout layout_of_images(const TensorType& type, std::span<const std::optional<Layout>> inputs) {
  const auto suits = [&](const std::optional<Layout>& layout) {
    return layout && ChannelGroups::of({type, *layout});
  };
  for (const std::size_t i : {1U, 0U, 5U}) {
    if (i < inputs.size() && suits(inputs[i])) return *inputs[i];
  }
  const Layout preferred = onednn::image_layout(type);
  if (suits(preferred)) return preferred;
  const Shape& shape = type.shape;  // of a few channels: channels-last
  return Layout(shape, {shape[1] * shape[2] * shape[3], 1, shape[1] * shape[3], shape[1]},
                shape.dims(), {});
}

std::size_t floats(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); }

// Operands: dy, x, gamma, mean, variance, y with relu; dx, dgamma, dbeta; scratchpad. Images are of
// type T.
template <typename T>
class BatchNormBackward final : public Kernel {
 public:
  BatchNormBackward(const Signature& s, const ChannelGroups& groups)
      : groups_(groups),
        relu_(s.node.attributes.integer("relu") != 0),
        epsilon_(s.node.attributes.real("epsilon")),
        channels_(s.inputs[1].type.shape[1]),
        stored_(groups.groups * groups.width) {
    const std::int64_t of_group = groups_.images * groups_.pixels * groups_.width;
    parts_ = std::clamp<std::int64_t>(of_group / kGrain, 1, kMostParts);
    constexpr std::int64_t kCached = 1 << 20;  // elements of each operand
    at_once_ = std::max<std::int64_t>(1, kCached / of_group);
  }

  // For each part the two sums of each channel; mean and factor of each channel, padding included.
  std::size_t scratchpad_bytes() const override { return floats((2 * parts_ + 2) * stored_); }

  void run(std::span<std::byte* const> operands) override {
    const std::size_t outputs = relu_ ? 6 : 5;
    operands_ = {as<T>(operands[0]), as<T>(operands[1]), relu_ ? as<T>(operands[5]) : nullptr,
                 as<T>(operands[outputs])};
    sums_ = as<float>(operands[outputs + 3]);
    mean_ = sums_ + 2 * parts_ * stored_;
    factor_ = mean_ + stored_;
    std::fill_n(sums_, (2 * parts_ + 2) * stored_, 0.0f);
    const float *gamma = as<float>(operands[2]), *variance = as<float>(operands[4]);
    std::copy_n(as<float>(operands[3]), channels_, mean_);
    float *dgamma = as<float>(operands[outputs + 1]), *dbeta = as<float>(operands[outputs + 2]);
    for (std::int64_t first = 0; first < groups_.groups; first += at_once_) {
      const std::int64_t count = std::min(at_once_, groups_.groups - first);
      parallel_for(count * parts_, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) sum_part(first + i / parts_, i % parts_);
      });
      const std::int64_t from = first * groups_.width;
      const std::int64_t to = std::min(channels_, from + count * groups_.width);
      for (std::int64_t c = from; c < to; ++c) {
        const double reciprocal = 1 / std::sqrt(variance[c] + epsilon_);
        set_channel(c, gamma[c], reciprocal, dgamma, dbeta);
      }
      parallel_for(count * parts_, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) descend_part(first + i / parts_, i % parts_);
      });
    }
  }

 private:
  static constexpr std::int64_t kMostParts = 16;

  struct Pointers {
    const T *dy, *x, *y;
    T* dx;
  };

  // Calls f(run) for what the part holds of each image.
  template <typename F>
  void for_each_run(std::int64_t group, std::int64_t part, F f) const {
    const std::int64_t all = groups_.images * groups_.pixels;
    const std::int64_t begin = all * part / parts_, end = all * (part + 1) / parts_;
    const std::int64_t channel = group * groups_.width;
    const std::int64_t width = std::min(groups_.width, groups_.channels - channel);
    for (std::int64_t at = begin; at < end;) {
      const std::int64_t image = at / groups_.pixels, pixel = at % groups_.pixels;
      const std::int64_t count = std::min(end - at, groups_.pixels - pixel);
      const std::int64_t offset = image * groups_.image_stride + group * groups_.group_stride +
                                  pixel * groups_.pixel_stride;
      f(PixelRun<T>{operands_.dy + offset, operands_.x + offset,
                    relu_ ? operands_.y + offset : nullptr, operands_.dx + offset, count,
                    groups_.pixel_stride, static_cast<std::size_t>(width)});
      at += count;
    }
  }

  float* sum(std::int64_t part, int which, std::int64_t channel) const {
    return sums_ + (2 * part + which) * stored_ + channel;
  }

  void sum_part(std::int64_t group, std::int64_t part) const {
    const std::int64_t channel = group * groups_.width;
    const GroupSums sums{mean_ + channel, sum(part, 0, channel), sum(part, 1, channel)};
    const auto add =
        for_type<T>(HWY_DYNAMIC_DISPATCH(SumPixels), HWY_DYNAMIC_DISPATCH(SumPixelsBF16));
    for_each_run(group, part, [&](const PixelRun<T>& run) { add(run, sums); });
  }

  // Adds up the parts of a channel, and leaves what dx needs in the sums of the first.
  void set_channel(std::int64_t c, float gamma, double reciprocal, float* dgamma,
                   float* dbeta) const {
    for (std::int64_t step = 1; step < parts_; step *= 2) {
      for (std::int64_t part = 0; part + step < parts_; part += 2 * step) {
        for (const int which : {0, 1}) *sum(part, which, c) += *sum(part + step, which, c);
      }
    }
    const double count = static_cast<double>(groups_.images * groups_.pixels);
    float &g = *sum(0, 0, c), &gx = *sum(0, 1, c);
    dbeta[c] = g;
    dgamma[c] = static_cast<float>(gx * reciprocal);
    factor_[c] = static_cast<float>(gamma * reciprocal);
    g = static_cast<float>(g / count);
    gx = static_cast<float>(gx * reciprocal * reciprocal / count);
  }

  void descend_part(std::int64_t group, std::int64_t part) const {
    const std::int64_t channel = group * groups_.width;
    const GroupSlope slope{mean_ + channel, factor_ + channel, sum(0, 0, channel),
                           sum(0, 1, channel)};
    const auto descend =
        for_type<T>(HWY_DYNAMIC_DISPATCH(DescendPixels), HWY_DYNAMIC_DISPATCH(DescendPixelsBF16));
    for_each_run(group, part, [&](const PixelRun<T>& run) { descend(run, slope); });
  }

  ChannelGroups groups_;
  bool relu_;
  double epsilon_;
  std::int64_t channels_, stored_;  // stored: in whole groups
  std::int64_t parts_, at_once_;    // of a group; groups
  Pointers operands_{};
  float *sums_ = nullptr, *mean_ = nullptr, *factor_ = nullptr;
};

const RegisterKernelRule batch_norm_backward{{
    .op = "batch_norm_backward",
    .layouts =
        [](const Signature& s, std::span<const std::optional<Layout>> inputs, KernelPolicy&) {
          const Layout layout = layout_of_images(s.inputs[1].type, inputs);
          LayoutWish wish{std::vector<Layout>(s.inputs.size()), {layout, {}, {}}};
          for (const std::size_t i : {0U, 1U, 5U}) {
            if (i < wish.inputs.size()) wish.inputs[i] = layout;
          }
          return wish;
        },
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const std::optional<ChannelGroups> groups = ChannelGroups::of(s.inputs[1]);
      CONCORD_CHECK(groups, "layer {} in layout {}", s.node.name, to_string(s.inputs[1].layout));
      return with_float_type(s.inputs[1].type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
        return std::make_unique<BatchNormBackward<decltype(zero)>>(s, *groups);
      });
    },
    .in_place = [](const Signature& s, std::size_t o,
                   std::size_t i) { return o == 0 && element_wise_in_place(s, o, i); },
}};

}  // namespace
}  // namespace concord::cpu
#endif

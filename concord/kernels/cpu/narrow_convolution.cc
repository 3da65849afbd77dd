// Images lie in tiles of 16 samples: a pixel of a channel is one vector of AVX-512. A product keeps
// a few channels by a few columns (or taps) in registers, so that each vector that is loaded is
// used several times. Sums are added in an order that the shapes alone decide.
//
// In bf16 products are of pairs (bf16_pair.h): of neighbouring channels, which images are copied
// for, or, where they are summed over samples, of neighbouring samples.
#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/narrow_convolution.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/kernels/cpu/bf16_pair-inl.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

#ifndef CONCORD_KERNELS_CPU_NARROW_CONVOLUTION_ONCE_
#define CONCORD_KERNELS_CPU_NARROW_CONVOLUTION_ONCE_
namespace concord::cpu {

constexpr std::int64_t kTile = 16;  // samples

// Planes of pixels of one tile of samples after the other: [tiles, channels, height, width, kTile].
struct Planes {
  std::int64_t channels, height, width;

  std::int64_t plane() const { return height * width * kTile; }
  std::int64_t tile() const { return channels * plane(); }
};

// Of images of type T: y = bias + the sum over the channels of x, or pairs of them, of their
// convolutions. The weight of a channel p of y, a channel q of x and a tap t, which counts along
// the rows of the window, is weights[p * weight_p
// + q * weight_q + t * weight_tap]. So it is the forward product, and with x and y, p and q
// exchanged and the window turned around the product of backward-data.
template <typename T>
struct PlaneProduct {
  Planes x_planes, y_planes;
  std::int64_t kernel_height, kernel_width, padding_height, padding_width;
  std::int64_t weight_p, weight_q, weight_tap;
  const Factor<T>*x = nullptr, *weights = nullptr;
  const float* bias = nullptr;
  T* y = nullptr;
};

// dw: for each channel of y, channel of x and tap, the sum over samples and pixels.
template <typename T>
struct WeightProduct {
  Planes x_planes, y_planes;
  std::int64_t tiles;
  std::int64_t kernel_height, kernel_width, padding_height, padding_width;
  const T *x = nullptr, *dy = nullptr;
  float *dw = nullptr, *dbias = nullptr;
};

// A range cut into as few parts of at most `most` as can be, about equal; calls f(begin, size).
template <typename F>
void for_each_block(std::int64_t count, std::int64_t most, F f) {
  const std::int64_t blocks = (count + most - 1) / most;
  for (std::int64_t i = 0; i < blocks; ++i) {
    const std::int64_t begin = count * i / blocks;
    f(begin, count * (i + 1) / blocks - begin);
  }
}

// Where a window of `kernel` taps at `position` lies inside of an input of `size`: its taps.
struct Taps {
  Taps(std::int64_t kernel, std::int64_t size, std::int64_t padding, std::int64_t position)
      : begin(std::max<std::int64_t>(0, padding - position)),
        end(std::max(begin, std::min(kernel, size + padding - position))) {}
  std::int64_t begin, end;
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

// Row `row` of channels p .. p + kChannels, one column or two, for the samples from `lane` on.
template <int kChannels, int kColumns, typename T>
HWY_INLINE void ConvolveBlock(const PlaneProduct<T>& c, const Factor<T>* x, T* y, std::int64_t row,
                              std::int64_t p, std::int64_t column, std::int64_t lane) {
  V sums[kChannels][kColumns];
  for (int i = 0; i < kChannels; ++i) {
    for (int j = 0; j < kColumns; ++j) sums[i][j] = splat(c.bias == nullptr ? 0 : c.bias[p + i]);
  }
  const Taps rows(c.kernel_height, c.x_planes.height, c.padding_height, row);
  const Taps first(c.kernel_width, c.x_planes.width, c.padding_width, column);
  const Taps last(c.kernel_width, c.x_planes.width, c.padding_width, column + kColumns - 1);
  // Taps that both columns have; at the edges one of them has others besides.
  const std::int64_t begin = first.begin, end = std::max(begin, last.end);
  for (std::int64_t q = 0; q < c.x_planes.channels; ++q) {
    for (std::int64_t kh = rows.begin; kh < rows.end; ++kh) {
      const Factor<T>* pixels =
          x + q * c.x_planes.plane() + lane +
          ((row + kh - c.padding_height) * c.x_planes.width + column - c.padding_width) * kTile;
      const Factor<T>* weights =
          c.weights + p * c.weight_p + q * c.weight_q + kh * c.kernel_width * c.weight_tap;
      for (std::int64_t kw = begin; kw < end; ++kw) {
        decltype(load_factors(pixels)) values[kColumns];
        for (int j = 0; j < kColumns; ++j) values[j] = load_factors(pixels + (kw + j) * kTile);
        for (int i = 0; i < kChannels; ++i) {
          const auto weight = repeat_factor(weights + i * c.weight_p + kw * c.weight_tap);
          for (int j = 0; j < kColumns; ++j)
            sums[i][j] = add_product(weight, values[j], sums[i][j]);
        }
      }
      const auto add_tap = [&](int j, std::int64_t kw) {
        const auto value = load_factors(pixels + (kw + j) * kTile);
        for (int i = 0; i < kChannels; ++i) {
          const auto weight = repeat_factor(weights + i * c.weight_p + kw * c.weight_tap);
          sums[i][j] = add_product(weight, value, sums[i][j]);
        }
      };
      for (std::int64_t kw = last.begin; kw < std::min(begin, last.end); ++kw) {
        add_tap(kColumns - 1, kw);
      }
      for (std::int64_t kw = end; kw < first.end; ++kw) add_tap(0, kw);
    }
  }
  for (int i = 0; i < kChannels; ++i) {
    T* pixels = y + (p + i) * c.y_planes.plane() + lane + (row * c.y_planes.width + column) * kTile;
    for (int j = 0; j < kColumns; ++j) store_vector(D(), sums[i][j], pixels + j * kTile);
  }
}

template <int kChannels, typename T>
HWY_INLINE void ConvolveChannels(const PlaneProduct<T>& c, const Factor<T>* x, T* y,
                                 std::int64_t row, std::int64_t p, std::int64_t lane) {
  std::int64_t column = 0;
  for (; column + 2 <= c.y_planes.width; column += 2) {
    ConvolveBlock<kChannels, 2>(c, x, y, row, p, column, lane);
  }
  if (column < c.y_planes.width) ConvolveBlock<kChannels, 1>(c, x, y, row, p, column, lane);
}

// Rows begin .. end of y, counted over the tiles.
template <typename T>
void convolve_rows(const PlaneProduct<T>& c, std::int64_t begin, std::int64_t end) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int64_t tile = i / c.y_planes.height, row = i % c.y_planes.height;
    const Factor<T>* x = c.x + tile * c.x_planes.tile();
    T* y = c.y + tile * c.y_planes.tile();
    for (std::int64_t lane = 0; lane < kTile; lane += lanes) {
      for_each_block(c.y_planes.channels, 6, [&](std::int64_t p, std::int64_t size) {
        if (size == 6) ConvolveChannels<6>(c, x, y, row, p, lane);
        if (size == 5) ConvolveChannels<5>(c, x, y, row, p, lane);
        if (size == 4) ConvolveChannels<4>(c, x, y, row, p, lane);
        if (size == 3) ConvolveChannels<3>(c, x, y, row, p, lane);
        if (size == 2) ConvolveChannels<2>(c, x, y, row, p, lane);
        if (size == 1) ConvolveChannels<1>(c, x, y, row, p, lane);
      });
    }
  }
}

template <int kRows, int kColumns>
HWY_INLINE void clear(V (&sums)[kRows][kColumns]) {
  for (auto& row : sums) {
    for (V& sum : row) sum = hn::Zero(D());
  }
}

template <int kChannels, int kTaps, typename T>
HWY_INLINE void store_weights(const V (&totals)[kChannels][kTaps], const WeightProduct<T>& c,
                              std::int64_t o, std::int64_t channel, std::int64_t kh,
                              std::int64_t kw) {
  for (int p = 0; p < kChannels; ++p) {
    const std::int64_t weight =
        (((o + p) * c.x_planes.channels + channel) * c.kernel_height + kh) * c.kernel_width + kw;
    for (int t = 0; t < kTaps; ++t) {
      c.dw[weight + t] = hn::GetLane(hn::SumOfLanes(D(), totals[p][t]));
    }
  }
}

// The pixels of dy that taps kw .. kw + taps of row `kh` of the window meet.
template <typename T>
struct MetPixels {
  MetPixels(const WeightProduct<T>& product, std::int64_t kh, std::int64_t kw, std::int64_t taps)
      : c(product),
        rows(c.y_planes.height, c.x_planes.height, c.padding_height, kh),
        begin(columns(kw).begin),
        end(std::max(begin, columns(kw + taps - 1).end)) {}

  Taps columns(std::int64_t tap) const {
    return {c.y_planes.width, c.x_planes.width, c.padding_width, tap};
  }

  const WeightProduct<T>& c;
  Taps rows;
  std::int64_t begin, end;  // columns that all taps meet
};

// Channels o .. o + kChannels of dy, taps kw .. kw + kTaps of row `kh` of the window.
template <int kChannels, int kTaps>
HWY_INLINE void SumWeights(const WeightProduct<float>& c, std::int64_t o, std::int64_t channel,
                           std::int64_t kh, std::int64_t kw) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  V totals[kChannels][kTaps];
  clear(totals);
  const MetPixels met(c, kh, kw, kTaps);
  for (std::int64_t i = 0; i < c.tiles * kTile; i += lanes) {
    const std::int64_t tile = i / kTile, lane = i % kTile;
    V sums[kChannels][kTaps];
    clear(sums);
    for (std::int64_t row = met.rows.begin; row < met.rows.end; ++row) {
      const float* dy = c.dy + tile * c.y_planes.tile() + o * c.y_planes.plane() +
                        row * c.y_planes.width * kTile + lane;
      const float* x =
          c.x + tile * c.x_planes.tile() + channel * c.x_planes.plane() + lane +
          ((row + kh - c.padding_height) * c.x_planes.width + kw - c.padding_width) * kTile;
      for (std::int64_t column = met.begin; column < met.end; ++column) {
        V values[kTaps];
        for (int t = 0; t < kTaps; ++t) values[t] = hn::LoadU(d, x + (column + t) * kTile);
        for (int p = 0; p < kChannels; ++p) {
          const V gradient = hn::LoadU(d, dy + p * c.y_planes.plane() + column * kTile);
          for (int t = 0; t < kTaps; ++t) {
            sums[p][t] = hn::MulAdd(gradient, values[t], sums[p][t]);
          }
        }
      }
      for (int t = 0; t < kTaps; ++t) {  // at the edges some taps meet more columns than others
        const auto add_columns = [&](std::int64_t from, std::int64_t to) {
          for (std::int64_t column = from; column < to; ++column) {
            const V value = hn::LoadU(d, x + (column + t) * kTile);
            for (int p = 0; p < kChannels; ++p) {
              const V gradient = hn::LoadU(d, dy + p * c.y_planes.plane() + column * kTile);
              sums[p][t] = hn::MulAdd(gradient, value, sums[p][t]);
            }
          }
        };
        const Taps own = met.columns(kw + t);
        add_columns(own.begin, std::min(met.begin, own.end));
        add_columns(std::max(met.end, own.begin), own.end);
      }
    }
    for (int p = 0; p < kChannels; ++p) {
      for (int t = 0; t < kTaps; ++t) totals[p][t] = hn::Add(totals[p][t], sums[p][t]);
    }
  }
  store_weights(totals, c, o, channel, kh, kw);
}

// Vectors run over the pixels of a row and their samples.
template <int kChannels, int kTaps>
HWY_INLINE void SumWeights(const WeightProduct<BF16>& c, std::int64_t o, std::int64_t channel,
                           std::int64_t kh, std::int64_t kw) {
  const auto vector = 2 * static_cast<std::int64_t>(hn::Lanes(D()));  // elements of one of pairs
  V totals[kChannels][kTaps];
  clear(totals);
  const MetPixels met(c, kh, kw, kTaps);
  const auto pairs = [](const BF16* data) {
    return load_factors(reinterpret_cast<const BF16Pair*>(data));
  };
  for (std::int64_t tile = 0; tile < c.tiles; ++tile) {
    V sums[kChannels][kTaps];
    clear(sums);
    for (std::int64_t row = met.rows.begin; row < met.rows.end; ++row) {
      const BF16* dy =
          c.dy + tile * c.y_planes.tile() + o * c.y_planes.plane() + row * c.y_planes.width * kTile;
      const BF16* x =
          c.x + tile * c.x_planes.tile() + channel * c.x_planes.plane() +
          ((row + kh - c.padding_height) * c.x_planes.width + kw - c.padding_width) * kTile;
      std::int64_t i = met.begin * kTile;
      for (; i + vector <= met.end * kTile; i += vector) {
        Pairs values[kTaps];
        for (int t = 0; t < kTaps; ++t) values[t] = pairs(x + i + t * kTile);
        for (int p = 0; p < kChannels; ++p) {
          const Pairs gradient = pairs(dy + p * c.y_planes.plane() + i);
          for (int t = 0; t < kTaps; ++t) {
            sums[p][t] = add_product(gradient, values[t], sums[p][t]);
          }
        }
      }
      for (int t = 0; t < kTaps; ++t) {  // half vectors, and columns that not all taps meet
        const auto add_elements = [&](std::int64_t from, std::int64_t to) {
          for (std::int64_t j = from; j < to; j += vector / 2) {
            const Pairs value = load_halves(x + j + t * kTile);
            for (int p = 0; p < kChannels; ++p) {
              const Pairs gradient = load_halves(dy + p * c.y_planes.plane() + j);
              sums[p][t] = add_product(gradient, value, sums[p][t]);
            }
          }
        };
        const Taps own = met.columns(kw + t);
        add_elements(own.begin * kTile, std::min(met.begin, own.end) * kTile);
        add_elements(std::max(i, own.begin * kTile), own.end * kTile);
      }
    }
    for (int p = 0; p < kChannels; ++p) {
      for (int t = 0; t < kTaps; ++t) totals[p][t] = hn::Add(totals[p][t], sums[p][t]);
    }
  }
  store_weights(totals, c, o, channel, kh, kw);
}

template <int kChannels, typename T>
HWY_INLINE void SumWeightsOfChannels(const WeightProduct<T>& c, std::int64_t o,
                                     std::int64_t channel, std::int64_t kh) {
  constexpr bool kManyRegisters = !HWY_ARCH_X86 || HWY_TARGET <= HWY_AVX3;
  for_each_block(c.kernel_width, kManyRegisters ? 5 : 3, [&](std::int64_t kw, std::int64_t size) {
    if constexpr (kManyRegisters) {
      if (size == 5) SumWeights<kChannels, 5>(c, o, channel, kh, kw);
      if (size == 4) SumWeights<kChannels, 4>(c, o, channel, kh, kw);
    }
    if (size == 3) SumWeights<kChannels, 3>(c, o, channel, kh, kw);
    if (size == 2) SumWeights<kChannels, 2>(c, o, channel, kh, kw);
    if (size == 1) SumWeights<kChannels, 1>(c, o, channel, kh, kw);
  });
}

template <typename T>
void sum_weight_row(const WeightProduct<T>& c, std::int64_t o, std::int64_t size,
                    std::int64_t channel, std::int64_t kh) {
  if (size == 4) SumWeightsOfChannels<4>(c, o, channel, kh);
  if (size == 3) SumWeightsOfChannels<3>(c, o, channel, kh);
  if (size == 2) SumWeightsOfChannels<2>(c, o, channel, kh);
  if (size == 1) SumWeightsOfChannels<1>(c, o, channel, kh);
}

template <typename T>
void sum_bias(const WeightProduct<T>& c, std::int64_t channel) {
  float total = 0;
  for (std::int64_t tile = 0; tile < c.tiles; ++tile) {
    const T* dy = c.dy + tile * c.y_planes.tile() + channel * c.y_planes.plane();
    Sum sum;
    for_each_vector(static_cast<std::size_t>(c.y_planes.plane()),
                    [&](auto i, auto n, int k) { sum.add(k, load(dy + i, n)); });
    total += sum.total();
  }
  c.dbias[channel] = total;
}

void ConvolveRows(const PlaneProduct<float>& c, std::int64_t begin, std::int64_t end) {
  convolve_rows(c, begin, end);
}
void ConvolveRowsBF16(const PlaneProduct<BF16>& c, std::int64_t begin, std::int64_t end) {
  convolve_rows(c, begin, end);
}
void SumWeightRow(const WeightProduct<float>& c, std::int64_t o, std::int64_t size,
                  std::int64_t channel, std::int64_t kh) {
  sum_weight_row(c, o, size, channel, kh);
}
void SumWeightRowBF16(const WeightProduct<BF16>& c, std::int64_t o, std::int64_t size,
                      std::int64_t channel, std::int64_t kh) {
  sum_weight_row(c, o, size, channel, kh);
}
void SumBias(const WeightProduct<float>& c, std::int64_t channel) { sum_bias(c, channel); }
void SumBiasBF16(const WeightProduct<BF16>& c, std::int64_t channel) { sum_bias(c, channel); }

// The planes of pairs of neighbouring channels of a tile.
void PairPlanes(const Planes& planes, const BF16* x, BF16Pair* pairs) {
  for (std::int64_t q = 0; q < planes.channels; q += 2) {
    const BF16* first = x + q * planes.plane();
    pair_up(first, q + 1 < planes.channels ? first + planes.plane() : nullptr,
            pairs + q / 2 * planes.plane(), planes.plane());
  }
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "concord/base/parallel.h"
#include "concord/kernels/cpu/convolution_roles.h"
#include "concord/kernels/cpu/narrow_convolution.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/ops/window.h"

namespace concord::cpu {

HWY_EXPORT(ConvolveRows);
HWY_EXPORT(ConvolveRowsBF16);
HWY_EXPORT(SumWeightRow);
HWY_EXPORT(SumWeightRowBF16);
HWY_EXPORT(SumBias);
HWY_EXPORT(SumBiasBF16);
HWY_EXPORT(PairPlanes);

namespace {

Planes planes_of(const Shape& images) { return {images[1], images[2], images[3]}; }

Layout sample_tiles(const Shape& s) {
  const std::int64_t plane = s[2] * s[3] * kTile;
  return Layout(s, {s[1] * plane, plane, s[3] * kTile, kTile}, s.dims(), {{0, kTile}});
}

// Operands: x, weights, bias if any; y. Or dy, weights; dx. Of images in bf16 the scratchpad holds
// the pairs of channels of x, then those of the weights.
template <typename T>
class Convolve final : public Kernel {
 public:
  // `first_weight`: where the product's weights begin in the op's.
  Convolve(const PlaneProduct<T>& product, std::int64_t tiles, std::int64_t first_weight, bool bias)
      : given_(product), tiles_(tiles), first_weight_(first_weight), bias_(bias) {}

  std::size_t scratchpad_bytes() const override {
    if (std::is_same_v<T, float>) return 0;
    return static_cast<std::size_t>(pairs_of_images() + pairs_of_weights()) * sizeof(BF16Pair);
  }

  void run(std::span<std::byte* const> operands) override {
    PlaneProduct<T> product = given_;
    product.bias = bias_ ? as<float>(operands[2]) : nullptr;
    product.y = as<T>(operands[bias_ ? 3 : 2]);
    const T *x = as<T>(operands[0]), *weights = as<T>(operands[1]) + first_weight_;
    if constexpr (std::is_same_v<T, float>) {
      product.x = x;
      product.weights = weights;
    } else {
      set_pairs(product, x, weights, as<BF16Pair>(operands[bias_ ? 4 : 3]));
    }
    const auto convolve =
        for_type<T>(HWY_DYNAMIC_DISPATCH(ConvolveRows), HWY_DYNAMIC_DISPATCH(ConvolveRowsBF16));
    parallel_for(tiles_ * product.y_planes.height, 1,
                 [&](std::int64_t begin, std::int64_t end) { convolve(product, begin, end); });
  }

 private:
  std::int64_t taps() const { return given_.kernel_height * given_.kernel_width; }
  Planes planes_of_pairs() const {
    Planes planes = given_.x_planes;
    planes.channels = factors<T>(planes.channels);
    return planes;
  }
  std::int64_t pairs_of_images() const { return tiles_ * planes_of_pairs().tile(); }
  std::int64_t pairs_of_weights() const {
    return given_.y_planes.channels * planes_of_pairs().channels * taps();
  }

  // Of the weights: [channels of y, pairs of channels of x, taps].
  void set_pairs(PlaneProduct<BF16>& product, const BF16* x, const BF16* weights,
                 BF16Pair* pairs) const {
    const Planes planes = planes_of_pairs();
    parallel_for(tiles_, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t tile = begin; tile < end; ++tile) {
        HWY_DYNAMIC_DISPATCH(PairPlanes)
        (given_.x_planes, x + tile * given_.x_planes.tile(), pairs + tile * planes.tile());
      }
    });
    product.x_planes = planes;
    product.x = pairs;
    BF16Pair* weight = pairs + pairs_of_images();
    product.weights = weight;
    product.weight_p = planes.channels * taps();
    product.weight_q = taps();
    product.weight_tap = 1;
    for (std::int64_t p = 0; p < given_.y_planes.channels; ++p) {
      for (std::int64_t q = 0; q < given_.x_planes.channels; q += 2) {
        for (std::int64_t tap = 0; tap < taps(); ++tap) {
          const BF16* first =
              weights + p * given_.weight_p + q * given_.weight_q + tap * given_.weight_tap;
          const bool is_pair = q + 1 < given_.x_planes.channels;
          const std::uint32_t upper = is_pair ? first[given_.weight_q].bits : 0;
          *weight++ = {first->bits | upper << 16};
        }
      }
    }
  }

  PlaneProduct<T> given_;  // of channels, not pairs
  std::int64_t tiles_, first_weight_;
  bool bias_;
};

// Operands: x, dy; dw, dbias if any.
template <typename T>
class ConvolveBackwardWeights final : public Kernel {
 public:
  ConvolveBackwardWeights(const WeightProduct<T>& product, bool bias)
      : product_(product), bias_(bias) {}

  void run(std::span<std::byte* const> operands) override {
    product_.x = as<T>(operands[0]);
    product_.dy = as<T>(operands[1]);
    product_.dw = as<float>(operands[2]);
    product_.dbias = bias_ ? as<float>(operands[3]) : nullptr;
    const std::int64_t channels = product_.x_planes.channels, rows = product_.kernel_height;
    const auto sum_row =
        for_type<T>(HWY_DYNAMIC_DISPATCH(SumWeightRow), HWY_DYNAMIC_DISPATCH(SumWeightRowBF16));
    for_each_block(product_.y_planes.channels, 4, [&](std::int64_t o, std::int64_t n) {
      parallel_for(channels * rows, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) sum_row(product_, o, n, i / rows, i % rows);
      });
    });
    if (!bias_) return;
    const auto sum_bias =
        for_type<T>(HWY_DYNAMIC_DISPATCH(SumBias), HWY_DYNAMIC_DISPATCH(SumBiasBF16));
    parallel_for(product_.y_planes.channels, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t o = begin; o < end; ++o) sum_bias(product_, o);
    });
  }

 private:
  WeightProduct<T> product_;
  bool bias_;
};

template <typename T>
std::unique_ptr<Kernel> make_kernel(const Signature& signature) {
  if (std::is_same_v<T, BF16>) require_bf16();
  const ConvolutionRoles roles(signature);
  const Planes x = planes_of(roles.shape(roles.x)), y = planes_of(roles.shape(roles.y));
  const ops::Extent2d kernel = ops::spatial_size(roles.shape(roles.w));
  const ops::Extent2d padding = ops::Window2d::of(signature.node).padding;
  const std::int64_t taps = kernel[0] * kernel[1], tiles = roles.shape(roles.x)[0] / kTile;
  if (signature.node.op == "conv2d_backward_weights") {
    const WeightProduct<T> product{x, y, tiles, kernel[0], kernel[1], padding[0], padding[1]};
    return std::make_unique<ConvolveBackwardWeights<T>>(product, signature.outputs.size() == 2);
  }
  if (signature.node.op == "conv2d") {
    const PlaneProduct<T> product{
        x, y, kernel[0], kernel[1], padding[0], padding[1], x.channels * taps, taps, 1};
    return std::make_unique<Convolve<T>>(product, tiles, 0, signature.inputs.size() == 3);
  }
  const PlaneProduct<T> product{y,
                                x,
                                kernel[0],
                                kernel[1],
                                kernel[0] - 1 - padding[0],
                                kernel[1] - 1 - padding[1],
                                taps,
                                x.channels * taps,
                                -1};
  return std::make_unique<Convolve<T>>(product, tiles, taps - 1, false);
}

}  // namespace

std::optional<LayoutWish> narrow_convolution_layouts(const Signature& signature) {
  constexpr std::int64_t kMostChannels = 16;
  const ConvolutionRoles roles(signature);
  const ops::Window2d window = ops::Window2d::of(signature.node);
  const std::int64_t in = roles.shape(roles.x)[1], out = roles.shape(roles.y)[1];
  const ops::Extent2d ones{1, 1};
  if (window.stride != ones || window.dilation != ones ||
      signature.node.attributes.integer("groups") != 1 || roles.shape(roles.x)[0] % kTile != 0 ||
      in > kMostChannels || out > kMostChannels || (in % 8 == 0 && out % 8 == 0)) {
    return std::nullopt;
  }
  return roles.wish(signature, [&](std::size_t i) {
    return roles.is_image(i) ? sample_tiles(roles.shape(i)) : Layout();
  });
}

std::unique_ptr<Kernel> make_narrow_convolution(const Signature& signature) {
  const std::optional<LayoutWish> wish = narrow_convolution_layouts(signature);
  if (!wish || !fulfils(signature, *wish)) return nullptr;
  return with_float_type(signature.inputs[0].type.dtype,
                         [&](auto zero) { return make_kernel<decltype(zero)>(signature); });
}

}  // namespace concord::cpu
#endif

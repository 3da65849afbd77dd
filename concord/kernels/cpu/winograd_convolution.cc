// Winograd's algorithm F(4x4, 3x3) (Lavin, Gray 2016). y falls into tiles of 4x4 pixels, each of
// which needs a patch of 6x6 pixels of x; neighbouring patches overlap. With the matrices of
// winograd_transforms-inl.h, of a patch and a tile
//
//   V = B^T x B      U = G w G^T      M = V U          y = A^T M A
//
// where V U is, for each of the 36 points of a patch, a product of matrices of [tiles, channels of
// x] and [channels of x, channels of y]. Backwards each step is transposed, so that the tiles are
// the same ones, and a patch of dx is added to those it overlaps:
//
//   dM = A dy A^T    dV = dM U^T      dx = B dV B^T    dU = V^T dM      dw = G^T dU G
//
// Images lie in blocks of 16 channels. A thread takes few rows of tiles at a time, so that their V
// and M stay in its cache. Whatever the images are stored in, all of this is computed in f32. Sums
// are added in an order that the shapes alone decide.
#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/winograd_convolution.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/kernels/cpu/block_matmul-inl.h"
#include "concord/kernels/cpu/winograd_problem.h"
#include "concord/kernels/cpu/winograd_transforms-inl.h"

#ifndef CONCORD_KERNELS_CPU_WINOGRAD_CONVOLUTION_ONCE_
#define CONCORD_KERNELS_CPU_WINOGRAD_CONVOLUTION_ONCE_
namespace concord::cpu {

// What a thread computes with.
struct WinogradScratch {
  UBlocks u;
  PointMatrices from, to;  // V and M, or dM and dV, of some rows of tiles; `to` some columns
  float* sums;             // backward: a row of patches of dx, for each channel block
};

// The functions below, of one instruction set, for images of type T.
template <typename T>
struct WinogradFunctions {
  void (*transform_w)(const WeightLayout&, const T* w, const UBlock&);
  void (*convolve)(const WinogradProblem&, const T* x, const WeightLayout&, const T* w,
                   const float* bias, Range, const WinogradScratch&, T* y);
  void (*convolve_backward_data)(const WinogradProblem&, const T* dy, const WeightLayout&,
                                 const T* w, Range, const WinogradScratch&, T* dx);
  void (*transform_x)(const WinogradProblem&, const T* x, Range, PointMatrices v);
  void (*transform_dy)(const WinogradProblem&, const T* dy, Range, PointMatrices dm);
  void (*add_to_du)(PointMatrices v, PointMatrices dm, std::int64_t tiles, bool accumulate,
                    const UBlock& du, Range points);
  void (*add_to_dbias)(const WinogradProblem&, const T* dy, Range, std::int64_t block,
                       float* dbias);
  void (*transform_du)(const WeightLayout&, const UBlock& du, float* dw);
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

// Calls f(lane) for each vector of a block.
template <typename F>
HWY_INLINE void for_each_lane(F f) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
  for (std::int64_t lane = 0; lane < kBlock; lane += lanes) f(lane);
}

// Where a channel block of a tile lies.
struct TilePlace {
  std::int64_t tile;       // counted from the first of the rows
  std::int64_t channel;    // of the image
  std::int64_t plane;      // of the image, counted through all samples
  std::int64_t top, left;  // pixel of y
};

template <typename F>
HWY_INLINE void for_each_tile(const WinogradProblem& p, const BlockedImages& images, Range channels,
                              Range rows, F f) {
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const std::int64_t sample = row / p.tile_rows, top = row % p.tile_rows * kTile;
    for (std::int64_t c = channels.begin; c < channels.end; c += kBlock) {
      const std::int64_t tile = (row - rows.begin) * p.tile_columns;
      for (std::int64_t column = 0; column < p.tile_columns; ++column) {
        f(TilePlace{tile + column, c, sample * images.blocks() + c / kBlock, top, column * kTile});
      }
    }
  }
}

HWY_INLINE void copy_vector(const float* from, float* to) {
  hn::StoreU(hn::LoadU(D(), from), D(), to);
}
HWY_INLINE void copy_vector(const BF16* from, BF16* to) {
  const hn::Rebind<std::uint16_t, D> bits;
  const auto v = hn::LoadU(bits, reinterpret_cast<const std::uint16_t*>(from));
  hn::StoreU(v, bits, reinterpret_cast<std::uint16_t*>(to));
}

// kSize x kSize pixels of a plane; where they stick out of it, a copy with zeros around.
template <int kSize, typename T>
class Patch {
 public:
  HWY_INLINE Patch(const BlockedImages& images, const T* plane, std::int64_t top,
                   std::int64_t left) {
    if (top >= 0 && left >= 0 && top + kSize <= images.height && left + kSize <= images.width) {
      data_ = plane + (top * images.width + left) * kBlock;
      row_stride_ = images.width * kBlock;
      return;
    }
    data_ = copy_;
    row_stride_ = kSize * kBlock;
    std::fill_n(copy_, kSize * kSize * kBlock, T());
    for (std::int64_t i = std::max<std::int64_t>(0, -top);
         i < std::min<std::int64_t>(kSize, images.height - top); ++i) {
      for (std::int64_t j = std::max<std::int64_t>(0, -left);
           j < std::min<std::int64_t>(kSize, images.width - left); ++j) {
        for_each_lane([&](std::int64_t lane) {
          copy_vector(plane + ((top + i) * images.width + left + j) * kBlock + lane,
                      copy_ + (i * kSize + j) * kBlock + lane);
        });
      }
    }
  }
  V load(int i, int j, std::int64_t lane) const {
    return load_vector(D(), data_ + i * row_stride_ + j * kBlock + lane);
  }

 private:
  const T* data_;
  std::int64_t row_stride_;
  HWY_ALIGN T copy_[kSize * kSize * kBlock];
};

// V = B^T x B of these rows of tiles, or dM = A dy A^T: the matrix is F, the patches are of kSize.
template <typename F, int kSize, typename T>
HWY_INLINE void transform_images(const WinogradProblem& p, const BlockedImages& images,
                                 std::int64_t padding_height, std::int64_t padding_width,
                                 const T* data, Range rows, PointMatrices points) {
  for_each_tile(p, images, {0, images.channels}, rows, [&](const TilePlace& at) {
    const Patch<kSize, T> patch(images, data + at.plane * images.plane(), at.top - padding_height,
                                at.left - padding_width);
    const std::int64_t stride = points.stride();
    for_each_lane([&](std::int64_t lane) {
      float* to = points.data + at.tile * points.columns + at.channel + lane;
      transform<F>([&](int i, int j) { return patch.load(i, j, lane); },
                   [&](int i, int j, V v) { hn::StoreU(v, D(), to + (i * kPatch + j) * stride); });
    });
  });
}

template <typename T>
HWY_NOINLINE void transform_x(const WinogradProblem& p, const T* x, Range rows, PointMatrices v) {
  transform_images<TransposedB, kPatch>(p, p.x, p.padding_height, p.padding_width, x, rows, v);
}

template <typename T>
HWY_NOINLINE void transform_dy(const WinogradProblem& p, const T* dy, Range rows,
                               PointMatrices dm) {
  transform_images<TimesA, kTile>(p, p.y, 0, 0, dy, rows, dm);
}

// y = A^T M A + bias, of these channels, which are the columns of M.
template <typename T>
HWY_NOINLINE void transform_m(const WinogradProblem& p, PointMatrices m, const float* bias,
                              Range channels, Range rows, T* y) {
  for_each_tile(p, p.y, channels, rows, [&](const TilePlace& at) {
    HWY_ALIGN T copy[kTile * kTile * kBlock];
    T* to = y + at.plane * p.y.plane() + (at.top * p.y.width + at.left) * kBlock;
    const std::int64_t height = std::min(kTile, p.y.height - at.top);
    const std::int64_t width = std::min(kTile, p.y.width - at.left);
    const bool whole = height == kTile && width == kTile;
    T* pixels = whole ? to : copy;
    const std::int64_t row_stride = (whole ? p.y.width : kTile) * kBlock, stride = m.stride();
    for_each_lane([&](std::int64_t lane) {
      const float* from = m.data + at.tile * m.columns + at.channel - channels.begin + lane;
      const V added = bias == nullptr ? hn::Zero(D()) : hn::LoadU(D(), bias + at.channel + lane);
      transform<TransposedA>(
          [&](int i, int j) { return hn::LoadU(D(), from + (i * kPatch + j) * stride); },
          [&](int i, int j, V v) {
            store_vector(D(), hn::Add(v, added), pixels + i * row_stride + j * kBlock + lane);
          });
    });
    for (std::int64_t i = 0; !whole && i < height; ++i) {
      std::memcpy(to + i * p.y.width * kBlock, copy + i * kTile * kBlock,
                  static_cast<std::size_t>(width * kBlock) * sizeof(T));
    }
  });
}

// dx = B dV B^T, of these channels, which are the columns of dV. The rows are some of one thread's
// whole samples, in order. `sums` holds for each channel block a row of overlapping patches; what
// the next row of tiles adds to stays there.
template <typename T>
HWY_NOINLINE void transform_dv(const WinogradProblem& p, PointMatrices dv, Range channels,
                               Range rows, float* sums, T* dx) {
  constexpr std::int64_t kShared = kPatch - kTile;  // rows of pixels
  const std::int64_t width = p.patches_width(), line = width * kBlock, stride = dv.stride();
  sums += channels.begin / kBlock * kPatch * line;
  for (std::int64_t c = channels.begin; c < channels.end; c += kBlock, sums += kPatch * line) {
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const std::int64_t tile_row = row % p.tile_rows;
      const std::int64_t kept = tile_row == 0 ? 0 : kShared;
      std::fill(sums + kept * line, sums + kPatch * line, 0.0f);
      for (std::int64_t column = 0; column < p.tile_columns; ++column) {
        for_each_lane([&](std::int64_t lane) {
          const std::int64_t tile = (row - rows.begin) * p.tile_columns + column;
          const float* from = dv.data + tile * dv.columns + c - channels.begin + lane;
          float* to = sums + column * kTile * kBlock + lane;
          transform<TimesB>(
              [&](int i, int j) { return hn::LoadU(D(), from + (i * kPatch + j) * stride); },
              [&](int i, int j, V v) {
                float* sum = to + i * line + j * kBlock;
                hn::StoreU(hn::Add(hn::LoadU(D(), sum), v), D(), sum);
              });
        });
      }
      const std::int64_t done = tile_row == p.tile_rows - 1 ? kPatch : kTile;
      T* plane = dx + (row / p.tile_rows * p.x.blocks() + c / kBlock) * p.x.plane();
      for (std::int64_t i = 0; i < done; ++i) {
        const std::int64_t h = tile_row * kTile + i - p.padding_height;
        if (h < 0 || h >= p.x.height) continue;
        const float* from = sums + i * line + p.padding_width * kBlock;
        T* to = plane + h * p.x.width * kBlock;
        for (std::int64_t j = 0; j < p.x.width; ++j) {
          for_each_lane([&](std::int64_t lane) {
            store_vector(D(), hn::LoadU(D(), from + j * kBlock + lane), to + j * kBlock + lane);
          });
        }
      }
      std::copy(sums + kTile * line, sums + kPatch * line, sums);
    }
  }
}

// U = G w G^T.
template <typename T>
HWY_NOINLINE void transform_w(const WeightLayout& layout, const T* w, const UBlock& u) {
  const std::int64_t stride = u.points.stride();
  for (std::int64_t column = 0; column < u.points.columns; column += kBlock) {
    for (std::int64_t row = 0; row < u.points.rows; ++row) {
      for_each_lane([&](std::int64_t lane) {
        const T* from = w + layout.offset(u.row + row, u.column + column) + lane;
        float* to = u.points.data + row * u.points.columns + column + lane;
        transform<TimesG>(
            [&](int i, int j) { return load_vector(D(), from + (i * 3 + j) * layout.kTap); },
            [&](int i, int j, V v) { hn::StoreU(v, D(), to + (i * kPatch + j) * stride); });
      });
    }
  }
}

// dw = G^T dU G.
void transform_du(const WeightLayout& layout, const UBlock& du, float* dw) {
  const std::int64_t stride = du.points.stride();
  for (std::int64_t column = 0; column < du.points.columns; column += kBlock) {
    for (std::int64_t row = 0; row < du.points.rows; ++row) {
      for_each_lane([&](std::int64_t lane) {
        const float* from = du.points.data + row * du.points.columns + column + lane;
        float* to = dw + layout.offset(du.row + row, du.column + column) + lane;
        transform<TransposedG>(
            [&](int i, int j) { return hn::LoadU(D(), from + (i * kPatch + j) * stride); },
            [&](int i, int j, V v) { hn::StoreU(v, D(), to + (i * 3 + j) * layout.kTap); });
      });
    }
  }
}

// From images of one side to those of the other, some rows of tiles after the other: in(rows)
// writes s.from; s.to = s.from U, one column of blocks of U after the other; out(channels, rows)
// reads it. Meanwhile memory is asked for what `in` will read next, and for what `out` will write.
template <typename T, typename In, typename Out>
HWY_INLINE void convolve_rows(const WinogradProblem& p, const BlockedImages& from_images,
                              const T* from, const BlockedImages& to_images, const T* to,
                              const WeightLayout& layout, const T* w, Range rows,
                              const WinogradScratch& s, In in, Out out) {
  const std::int64_t step = s.from.rows / p.tile_columns;
  const std::int64_t down = s.u.down(), blocks = s.u.count();
  for (std::int64_t row = rows.begin; row < rows.end; row += step) {
    const Range now{row, std::min(row + step, rows.end)};
    const Range next{now.end, std::min(now.end + step, rows.end)};
    const Prefetch<T> read{p, from_images, from, {0, from_images.channels}, next, false};
    in(now);
    for (std::int64_t i = 0; i < blocks; ++i) {
      const UBlock u = s.u[i];
      const Range columns{u.column, u.column + u.points.columns};
      const Prefetch<T> written{p, to_images, to, columns, now, true};
      if (!s.u.kept) transform_w(layout, w, u);
      for (std::int64_t point = 0; point < kPoints; ++point) {
        read(i * kPoints + point, blocks * kPoints);
        written(i % down * kPoints + point, down * kPoints);
        multiply(LeftFactor<float>{s.from[point] + u.row, s.from.columns, 1},
                 RightFactor<float>{u.points[point], columns.size()},
                 Product{s.to[point], s.to.columns},
                 ProductSizes{now.size() * p.tile_columns, u.points.rows, columns.size()},
                 /*accumulate=*/u.row > 0);
      }
      if (i % down == down - 1) out(columns, now);
    }
  }
}

template <typename T>
void convolve(const WinogradProblem& p, const T* x, const WeightLayout& layout, const T* w,
              const float* bias, Range rows, const WinogradScratch& s, T* y) {
  convolve_rows(
      p, p.x, x, p.y, y, layout, w, rows, s, [&](Range now) { transform_x(p, x, now, s.from); },
      [&](Range channels, Range now) { transform_m(p, s.to, bias, channels, now, y); });
}

template <typename T>
void convolve_backward_data(const WinogradProblem& p, const T* dy, const WeightLayout& layout,
                            const T* w, Range rows, const WinogradScratch& s, T* dx) {
  convolve_rows(
      p, p.y, dy, p.x, dx, layout, w, rows, s, [&](Range now) { transform_dy(p, dy, now, s.from); },
      [&](Range channels, Range now) { transform_dv(p, s.to, channels, now, s.sums, dx); });
}

// dU = V^T dM, or dU += V^T dM, of some points.
void add_to_du(PointMatrices v, PointMatrices dm, std::int64_t tiles, bool accumulate,
               const UBlock& du, Range points) {
  for (std::int64_t point = points.begin; point < points.end; ++point) {
    multiply(LeftFactor<float>{v[point] + du.row, 1, v.columns},
             RightFactor<float>{dm[point] + du.column, dm.columns},
             Product{du.points[point], du.points.columns},
             ProductSizes{du.points.rows, tiles, du.points.columns}, accumulate);
  }
}

// Adds the sums of dy over these rows of tiles, for a channel block.
template <typename T>
void add_to_dbias(const WinogradProblem& p, const T* dy, Range rows, std::int64_t block,
                  float* dbias) {
  const D d;
  for_each_lane([&](std::int64_t lane) {
    V total = hn::LoadU(d, dbias + block * kBlock + lane);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const std::int64_t top = row % p.tile_rows * kTile;
      const T* from = dy + (row / p.tile_rows * p.y.blocks() + block) * p.y.plane() +
                      top * p.y.width * kBlock + lane;
      const std::int64_t pixels = std::min(kTile, p.y.height - top) * p.y.width;
      V sums[4] = {splat(0), splat(0), splat(0), splat(0)};
      for (std::int64_t i = 0; i < pixels; ++i) {
        sums[i % 4] = hn::Add(sums[i % 4], load_vector(d, from + i * kBlock));
      }
      total = hn::Add(total, hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3])));
    }
    hn::StoreU(total, d, dbias + block * kBlock + lane);
  });
}

template <typename T>
WinogradFunctions<T> functions() {
  return {transform_w<T>,  convolve<T>, convolve_backward_data<T>, transform_x<T>,
          transform_dy<T>, add_to_du,   add_to_dbias<T>,           transform_du};
}
WinogradFunctions<float> WinogradOfF32() { return functions<float>(); }
WinogradFunctions<BF16> WinogradOfBF16() { return functions<BF16>(); }

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "concord/base/parallel.h"
#include "concord/kernels/cpu/convolution_roles.h"
#include "concord/kernels/cpu/onednn.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/winograd_convolution.h"
#include "concord/ops/window.h"

namespace concord::cpu {

HWY_EXPORT(WinogradOfF32);
HWY_EXPORT(WinogradOfBF16);

namespace {

template <typename T>
WinogradFunctions<T> winograd_functions() {
  return for_type<T>(HWY_DYNAMIC_DISPATCH(WinogradOfF32), HWY_DYNAMIC_DISPATCH(WinogradOfBF16))();
}

// How many of `rows` rows of tiles are computed together: all of few tiles, else about `tiles`.
std::int64_t rows_at_once(const WinogradProblem& p, std::int64_t rows, std::int64_t tiles) {
  constexpr std::int64_t kFew = 128;
  if (rows * p.tile_columns <= kFew) return rows;
  return std::max<std::int64_t>(1, (tiles + p.tile_columns / 2) / p.tile_columns);
}

// Where weights [O, I, 3, 3] lie whose rows of U are the channels of x, and of y.
WeightLayout rows_of_x(const WinogradProblem& p) {
  return {WeightLayout::kSize, WeightLayout::kSize * p.x.blocks()};
}
WeightLayout rows_of_y(const WinogradProblem& p) {
  return {WeightLayout::kSize * p.x.blocks(), WeightLayout::kSize};
}

// Takes memory from the scratchpad, or counts what would be taken from none.
class Allotment {
 public:
  explicit Allotment(std::byte* scratchpad = nullptr) : scratchpad_(scratchpad) {}

  float* floats(std::int64_t count) {
    float* result = scratchpad_ == nullptr ? nullptr : as<float>(scratchpad_ + bytes_);
    bytes_ += aligned(static_cast<std::size_t>(count) * sizeof(float));
    return result;
  }
  PointMatrices matrices(std::int64_t rows, std::int64_t columns) {
    PointMatrices result{nullptr, rows, columns};
    result.data = floats(result.floats());
    return result;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::byte* scratchpad_;
  std::size_t bytes_ = 0;
};

// Calls f(thread, its range) for ranges of [0, count) that are about equal.
template <typename F>
void for_each_thread(std::int64_t threads, std::int64_t count, F f) {
  parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      f(i, Range{count * i / threads, count * (i + 1) / threads});
    }
  });
}

// Forward or backward-data. Operands: x, weights, bias if any; y. Or dy, weights; dx.
template <typename T>
class WinogradConvolution final : public Kernel {
 public:
  WinogradConvolution(const WinogradProblem& problem, bool backward, bool bias)
      : p_(problem), backward_(backward), bias_(bias) {}

  std::size_t scratchpad_bytes() const override {
    Allotment memory;
    u(memory, is_kept_);
    for (std::int64_t i = 0; i < threads_; ++i) scratch(memory);
    return memory.bytes();
  }

  void run(std::span<std::byte* const> operands) override {
    const T *from = as<T>(operands[0]), *w = as<T>(operands[1]);
    const float* bias = bias_ ? as<float>(operands[2]) : nullptr;
    T* to = as<T>(operands[bias_ ? 3 : 2]);
    Allotment memory(operands[bias_ ? 4 : 3]);
    const WeightLayout layout = backward_ ? rows_of_y(p_) : rows_of_x(p_);
    const WinogradFunctions<T> f = winograd_functions<T>();
    const UBlocks kept = u(memory, is_kept_);
    parallel_for(is_kept_ ? kept.count() : 0, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) f.transform_w(layout, w, kept[i]);
    });
    for_each_thread(threads_, p_.rows() / unit_, [&](std::int64_t thread, Range units) {
      const Range rows{units.begin * unit_, units.end * unit_};
      Allotment own = memory;
      for (std::int64_t i = 0; i < thread; ++i) scratch(own);
      WinogradScratch s = scratch(own);
      if (is_kept_) s.u = kept;
      if (backward_) {
        f.convolve_backward_data(p_, from, layout, w, rows, s, to);
      } else {
        f.convolve(p_, from, layout, w, bias, rows, s, to);
      }
    });
  }

 private:
  // Memory for U, if it is wanted.
  UBlocks u(Allotment& memory, bool wanted) const {
    const std::int64_t rows = (backward_ ? p_.y : p_.x).channels;
    UBlocks u{rows, (backward_ ? p_.x : p_.y).channels, is_kept_};
    if (wanted) u.data = memory.floats(u.floats());
    return u;
  }
  // Memory of one thread.
  WinogradScratch scratch(Allotment& memory) const {
    const std::int64_t tiles = rows_at_once_ * p_.tile_columns;
    const UBlocks own = u(memory, !is_kept_);
    return {own, memory.matrices(tiles, own.rows),
            memory.matrices(tiles, std::min(own.columns, UBlocks::kMostColumns)),
            memory.floats(backward_ ? kPatch * p_.patches_width() * p_.x.channels : 0)};
  }

  WinogradProblem p_;
  bool backward_, bias_;
  std::int64_t threads_ = compute_threads();
  // Backward, neighbouring rows of tiles add to the same pixels, so a thread takes whole samples.
  std::int64_t unit_ = backward_ ? p_.tile_rows : 1;
  std::int64_t most_rows_ = (p_.rows() / unit_ + threads_ - 1) / threads_ * unit_;  // of a thread
  std::int64_t rows_at_once_ = rows_at_once(p_, most_rows_, 24);
  // Where a thread computes all of its tiles together, it needs each block of U once.
  bool is_kept_ = rows_at_once_ < most_rows_;
};

// Operands: x, dy; dw, dbias if any. The threads share V and dM of a part of the tiles. Where that
// is all of them, a block of dU is needed no longer than one is computed.
template <typename T>
class WinogradBackwardWeights final : public Kernel {
 public:
  WinogradBackwardWeights(const WinogradProblem& problem, bool bias) : p_(problem), bias_(bias) {}

  std::size_t scratchpad_bytes() const override {
    Allotment memory;
    Matrices(*this, memory);
    return memory.bytes();
  }

  void run(std::span<std::byte* const> operands) override {
    const T *x = as<T>(operands[0]), *dy = as<T>(operands[1]);
    float *dw = as<float>(operands[2]), *dbias = bias_ ? as<float>(operands[3]) : nullptr;
    Allotment memory(operands[bias_ ? 4 : 3]);
    const Matrices m(*this, memory);
    const WinogradFunctions<T> f = winograd_functions<T>();
    if (bias_) std::fill_n(dbias, p_.y.channels, 0.0f);
    for (std::int64_t row = 0; row < p_.rows(); row += step_) {
      const std::int64_t rows = std::min(step_, p_.rows() - row), tiles = rows * p_.tile_columns;
      parallel_for(rows, 1, [&](std::int64_t begin, std::int64_t end) {
        const Range range{row + begin, row + end};
        f.transform_x(p_, x, range, m.v.from_row(begin * p_.tile_columns));
        f.transform_dy(p_, dy, range, m.dm.from_row(begin * p_.tile_columns));
      });
      parallel_for(bias_ ? p_.y.blocks() : 0, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          f.add_to_dbias(p_, dy, {row, row + rows}, i, dbias);
        }
      });
      // Point after point: one's V and dM stay in the cache for all blocks of dU.
      const std::int64_t blocks = m.du.count();
      parallel_for(m.du.kept ? kPoints * blocks : 0, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const std::int64_t point = i / blocks;
          f.add_to_du(m.v, m.dm, tiles, row > 0, m.du[i % blocks], {point, point + 1});
        }
      });
    }
    for_each_thread(threads_, m.du.count(), [&](std::int64_t thread, Range blocks) {
      for (std::int64_t i = blocks.begin; i < blocks.end; ++i) {
        UBlock du = m.du[i];
        if (!m.du.kept) {
          du.points.data += thread * m.du.floats();
          f.add_to_du(m.v, m.dm, m.v.rows, false, du, {0, kPoints});
        }
        f.transform_du(rows_of_x(p_), du, dw);
      }
    });
  }

 private:
  struct Matrices {
    Matrices(const WinogradBackwardWeights& k, Allotment& memory)
        : v(memory.matrices(k.step_ * k.p_.tile_columns, k.p_.x.channels)),
          dm(memory.matrices(k.step_ * k.p_.tile_columns, k.p_.y.channels)),
          du{k.p_.x.channels, k.p_.y.channels, k.step_ < k.p_.rows()} {
      du.data = memory.floats(du.floats() * (du.kept ? 1 : k.threads_));
    }
    PointMatrices v, dm;
    UBlocks du;
  };

  WinogradProblem p_;
  bool bias_;
  std::int64_t threads_ = compute_threads();
  std::int64_t step_ = rows_at_once(p_, p_.rows(), 72);
};

Layout blocked_images(const Shape& s) {
  const std::int64_t plane = s[2] * s[3] * kBlock;
  return Layout(s, {s[1] / kBlock * plane, plane, s[3] * kBlock, kBlock}, s.dims(), {{1, kBlock}});
}

// In blocks of [3, 3, kBlock, kBlock], whose last dim is the dim `innermost` of the weights.
Layout blocked_weights(const Shape& s, int innermost) {
  constexpr std::int64_t kTap = WeightLayout::kTap;
  return Layout(s, {s[1] / kBlock * 9 * kTap, 9 * kTap, 3 * kTap, kTap}, s.dims(),
                {{1 - innermost, kBlock}, {innermost, kBlock}});
}

BlockedImages images_of(const Shape& s) { return {s[1], s[2], s[3]}; }

}  // namespace

std::optional<LayoutWish> winograd_convolution_layouts(const Signature& signature) {
  const ConvolutionRoles roles(signature);
  const Shape &x = roles.shape(roles.x), &w = roles.shape(roles.w);
  const ops::Window2d window = ops::Window2d::of(signature.node);
  const ops::Extent2d ones{1, 1};
  if (ops::spatial_size(w) != ops::Extent2d{3, 3} || window.stride != ones ||
      window.dilation != ones || signature.node.attributes.integer("groups") != 1 ||
      w[0] % kBlock != 0 || w[1] % kBlock != 0 ||
      onednn::image_layout(roles.operands[roles.x].type) != blocked_images(x)) {
    return std::nullopt;
  }
  return roles.wish(signature, [&](std::size_t i) {
    if (roles.is_image(i)) return blocked_images(roles.shape(i));
    if (i != roles.w) return Layout();
    return blocked_weights(w, signature.node.op == "conv2d_backward_data" ? 1 : 0);
  });
}

std::unique_ptr<Kernel> make_winograd_convolution(const Signature& signature) {
  const std::optional<LayoutWish> wish = winograd_convolution_layouts(signature);
  CONCORD_CHECK(wish && fulfils(signature, *wish), "operands of {}", signature.node.name);
  const ConvolutionRoles roles(signature);
  const ops::Extent2d padding = ops::Window2d::of(signature.node).padding;
  const WinogradProblem problem{images_of(roles.shape(roles.x)), images_of(roles.shape(roles.y)),
                                roles.shape(roles.x)[0], padding[0], padding[1]};
  const auto make = [&](auto zero) -> std::unique_ptr<Kernel> {
    using T = decltype(zero);
    if (std::is_same_v<T, BF16>) require_bf16();
    if (signature.node.op == "conv2d_backward_weights") {
      return std::make_unique<WinogradBackwardWeights<T>>(problem, signature.outputs.size() == 2);
    }
    return std::make_unique<WinogradConvolution<T>>(
        problem, signature.node.op == "conv2d_backward_data", signature.inputs.size() == 3);
  };
  return with_float_type(signature.inputs[0].type.dtype, make);
}

}  // namespace concord::cpu
#endif

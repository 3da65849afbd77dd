#include <algorithm>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/max_pooling.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/kernels/cpu/vector_loops-inl.h"
#include "concord/ops/window.h"

#ifndef CONCORD_KERNELS_CPU_MAX_POOLING_ONCE_
#define CONCORD_KERNELS_CPU_MAX_POOLING_ONCE_
namespace concord::cpu {

// Planes of height x width pixels of `lanes` neighbouring elements.
struct PixelPlanes {
  std::int64_t planes, height, width, lanes;

  std::int64_t plane() const { return height * width * lanes; }
};

// Forward, x is read and y and index are written; backward, dy and index are read, dx written.
template <typename T>
struct MaxPooling {
  PixelPlanes x_planes, y_planes;
  ops::Window2d window;
  T *x = nullptr, *y = nullptr;   // or their gradients
  std::uint8_t* index = nullptr;  // like y: the place of the maximum in its window

  // Each pixel lies in one window, and windows hold nothing else.
  bool tiles_x() const {
    return window.stride == window.kernel && window.padding == ops::Extent2d{0, 0} &&
           y_planes.height * window.kernel[0] == x_planes.height &&
           y_planes.width * window.kernel[1] == x_planes.width;
  }
};

// The taps of a window at this position that lie inside of the image.
struct WindowTaps {
  template <typename T>
  WindowTaps(const MaxPooling<T>& pooling, std::size_t along, std::int64_t position)
      : first(position * pooling.window.stride[along] - pooling.window.padding[along]),
        begin(std::max<std::int64_t>(0, -first)),
        end(std::min(pooling.window.kernel[along],
                     (along == 0 ? pooling.x_planes.height : pooling.x_planes.width) - first)) {}
  std::int64_t first;  // pixel of tap 0
  std::int64_t begin, end;
};

// The same where all windows are 2x2 and lie inside: numbers that the compiler knows.
struct TwoTaps {
  template <typename T>
  TwoTaps(const MaxPooling<T>& pooling, std::size_t along, std::int64_t position)
      : first(position * pooling.window.stride[along]) {}
  template <typename T>
  static bool hold_for(const MaxPooling<T>& p) {
    return p.window.kernel == ops::Extent2d{2, 2} && p.window.padding == ops::Extent2d{0, 0};
  }
  std::int64_t first;
  static constexpr std::int64_t begin = 0, end = 2;
};

// The windows along a dim that hold a pixel: [begin, end), none where that is empty.
struct HoldingWindows {
  template <typename T>
  HoldingWindows(const MaxPooling<T>& pooling, std::size_t along, std::int64_t pixel) {
    const std::int64_t kernel = pooling.window.kernel[along], stride = pooling.window.stride[along];
    const std::int64_t at = pixel + pooling.window.padding[along];
    begin = at < kernel ? 0 : (at - kernel) / stride + 1;
    end = std::min(at / stride + 1, along == 0 ? pooling.y_planes.height : pooling.y_planes.width);
  }
  std::int64_t begin, end;
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

using Bytes = hn::Rebind<std::uint8_t, D>;
using Places = hn::Rebind<std::int32_t, D>;

// Calls f(y, lane, rows, columns) for each vector of y: its offset, its first lane and the taps of
// its window.
template <typename Taps, typename T, typename F>
HWY_INLINE void for_each_window(const MaxPooling<T>& p, std::int64_t plane, F f) {
  const auto vector = static_cast<std::int64_t>(hn::Lanes(D()));
  const PixelPlanes& y = p.y_planes;
  for (std::int64_t h = 0; h < y.height; ++h) {
    const Taps rows(p, 0, h);
    for (std::int64_t w = 0; w < y.width; ++w) {
      const Taps columns(p, 1, w);
      for (std::int64_t lane = 0; lane < y.lanes; lane += vector) {
        f(plane * y.plane() + (h * y.width + w) * y.lanes + lane, lane, rows, columns);
      }
    }
  }
}

// Calls f(offset in x, place in the window) for each tap.
template <typename Taps, typename T, typename F>
HWY_INLINE void for_each_tap(const MaxPooling<T>& p, std::int64_t plane, std::int64_t lane,
                             const Taps& rows, const Taps& columns, F f) {
  const PixelPlanes& x = p.x_planes;
  for (std::int64_t kh = rows.begin; kh < rows.end; ++kh) {
    const std::int64_t row = plane * x.plane() + (rows.first + kh) * x.width * x.lanes + lane;
    for (std::int64_t kw = columns.begin; kw < columns.end; ++kw) {
      f(row + (columns.first + kw) * x.lanes, kh * p.window.kernel[1] + kw);
    }
  }
}

// Below p is a copy: bytes that are written, as an index is, might change whatever a reference
// names.

// The first of equal elements is the maximum.
template <typename Taps, typename T>
void pool_plane_by(const MaxPooling<T> p, std::int64_t plane) {
  const D d;
  const Places places;
  const bool keeps_index = p.index != nullptr;
  for_each_window<Taps>(p, plane, [&](auto y, auto lane, const auto& rows, const auto& columns) {
    const std::int64_t first_place = rows.begin * p.window.kernel[1] + columns.begin;
    const std::int64_t first =
        plane * p.x_planes.plane() + lane +
        ((rows.first + rows.begin) * p.x_planes.width + columns.first + columns.begin) *
            p.x_planes.lanes;
    V best = load_vector(d, p.x + first);
    auto index = hn::Set(places, static_cast<std::int32_t>(first_place));
    for_each_tap(p, plane, lane, rows, columns, [&](std::int64_t x, std::int64_t place) {
      const V value = load_vector(d, p.x + x);
      const auto larger = hn::Gt(value, best);
      best = hn::IfThenElse(larger, value, best);
      index = hn::IfThenElse(hn::RebindMask(places, larger),
                             hn::Set(places, static_cast<std::int32_t>(place)), index);
    });
    store_vector(d, best, p.y + y);
    if (keeps_index) hn::StoreU(hn::DemoteTo(Bytes(), index), Bytes(), p.index + y);
  });
}

// Each pixel sums, in f32, what the windows that hold it send it.
template <typename T>
void pool_plane_backward_by_pixels(const MaxPooling<T> p, std::int64_t plane) {
  const D d;
  const Places places;
  const auto vector = static_cast<std::int64_t>(hn::Lanes(d));
  const PixelPlanes &x = p.x_planes, &y = p.y_planes;
  const auto [kernel, stride, padding, dilation] = p.window;
  T* pixel = p.x + plane * x.plane();
  for (std::int64_t h = 0; h < x.height; ++h) {
    const HoldingWindows rows(p, 0, h);
    for (std::int64_t w = 0; w < x.width; ++w) {
      const HoldingWindows columns(p, 1, w);
      for (std::int64_t lane = 0; lane < x.lanes; lane += vector, pixel += vector) {
        V sum = hn::Zero(d);
        for (std::int64_t i = rows.begin; i < rows.end; ++i) {
          const std::int64_t row = (h + padding[0] - i * stride[0]) * kernel[1];
          for (std::int64_t j = columns.begin; j < columns.end; ++j) {
            const std::int64_t window = plane * y.plane() + (i * y.width + j) * y.lanes + lane;
            const auto index = hn::PromoteTo(places, hn::LoadU(Bytes(), p.index + window));
            const std::int64_t place = row + w + padding[1] - j * stride[1];
            const auto here = hn::Eq(index, hn::Set(places, static_cast<std::int32_t>(place)));
            const V gradient = load_vector(d, p.y + window);
            sum = hn::Add(sum, hn::IfThenElseZero(hn::RebindMask(d, here), gradient));
          }
        }
        store_vector(d, sum, pixel);
      }
    }
  }
}

// The same where each pixel has a window of its own: it gets all or nothing, whatever its type.
template <typename Taps, typename T>
void pool_tiles_backward_by(const MaxPooling<T> p, std::int64_t plane) {
  using Bits = std::conditional_t<sizeof(T) == 2, std::uint16_t, std::uint32_t>;
  const hn::Rebind<Bits, D> bits;
  const auto* gradients = reinterpret_cast<const Bits*>(p.y);
  auto* pixels = reinterpret_cast<Bits*>(p.x);
  for_each_window<Taps>(p, plane, [&](auto y, auto lane, const auto& rows, const auto& columns) {
    const auto gradient = hn::LoadU(bits, gradients + y);
    const auto index = hn::PromoteTo(bits, hn::LoadU(Bytes(), p.index + y));
    for_each_tap(p, plane, lane, rows, columns, [&](std::int64_t x, std::int64_t place) {
      const auto here = hn::Eq(index, hn::Set(bits, static_cast<Bits>(place)));
      hn::StoreU(hn::IfThenElseZero(here, gradient), bits, pixels + x);
    });
  });
}

template <typename T>
void pool_plane(const MaxPooling<T>& p, std::int64_t plane) {
  TwoTaps::hold_for(p) ? pool_plane_by<TwoTaps>(p, plane) : pool_plane_by<WindowTaps>(p, plane);
}
template <typename T>
void pool_plane_backward(const MaxPooling<T>& p, std::int64_t plane) {
  if (!p.tiles_x()) return pool_plane_backward_by_pixels(p, plane);
  TwoTaps::hold_for(p) ? pool_tiles_backward_by<TwoTaps>(p, plane)
                       : pool_tiles_backward_by<WindowTaps>(p, plane);
}

void MaxPoolPlane(const MaxPooling<float>& p, std::int64_t plane) { pool_plane(p, plane); }
void MaxPoolPlaneBF16(const MaxPooling<BF16>& p, std::int64_t plane) { pool_plane(p, plane); }
void MaxPoolPlaneBackward(const MaxPooling<float>& p, std::int64_t plane) {
  pool_plane_backward(p, plane);
}
void MaxPoolPlaneBackwardBF16(const MaxPooling<BF16>& p, std::int64_t plane) {
  pool_plane_backward(p, plane);
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <optional>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/max_pooling.h"
#include "concord/kernels/cpu/operands.h"

namespace concord::cpu {

HWY_EXPORT(MaxPoolPlane);
HWY_EXPORT(MaxPoolPlaneBF16);
HWY_EXPORT(MaxPoolPlaneBackward);
HWY_EXPORT(MaxPoolPlaneBackwardBF16);

namespace {

std::optional<PixelPlanes> planes_of(const Operand& images) {
  constexpr std::int64_t kVector = 16;  // floats of the longest
  const Shape& shape = images.type.shape;
  const Layout& layout = images.layout;
  // Padding would get an index that is not zero.
  if (shape.rank() != 4 || layout.is_row_major() || layout.has_padding(shape)) return std::nullopt;
  PixelPlanes planes{0, shape[2], shape[3], layout.strides()[3]};
  if (layout.blocks().empty() ? layout.strides()[1] != 1 || planes.lanes != shape[1]
                              : layout.blocks().size() != 1 || layout.blocks()[0].dim > 1 ||
                                    planes.lanes != layout.blocks()[0].size) {
    return std::nullopt;
  }
  if (planes.lanes % kVector != 0 || layout.strides()[2] != shape[3] * planes.lanes) {
    return std::nullopt;
  }
  planes.planes = shape.elements() / planes.plane();
  return planes;
}

template <typename T>
class MaxPool final : public Kernel {
 public:
  MaxPool(const MaxPooling<T>& pooling, bool backward) : pooling_(pooling), backward_(backward) {}

  // Operands: x; y, index if it is wanted. Or dy, index; dx.
  void run(std::span<std::byte* const> operands) override {
    pooling_.x = as<T>(operands[backward_ ? 2 : 0]);
    pooling_.y = as<T>(operands[backward_ ? 0 : 1]);
    const std::size_t index = backward_ ? 1 : 2;
    pooling_.index = index < operands.size() ? as<std::uint8_t>(operands[index]) : nullptr;
    const std::int64_t grain = std::max<std::int64_t>(1, kGrain / pooling_.x_planes.plane());
    const auto pool = backward_ ? for_type<T>(HWY_DYNAMIC_DISPATCH(MaxPoolPlaneBackward),
                                              HWY_DYNAMIC_DISPATCH(MaxPoolPlaneBackwardBF16))
                                : for_type<T>(HWY_DYNAMIC_DISPATCH(MaxPoolPlane),
                                              HWY_DYNAMIC_DISPATCH(MaxPoolPlaneBF16));
    parallel_for(pooling_.x_planes.planes, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t plane = begin; plane < end; ++plane) pool(pooling_, plane);
    });
  }

 private:
  MaxPooling<T> pooling_;
  bool backward_;
};

}  // namespace

bool has_pixels_of_vectors(const Operand& images) { return planes_of(images).has_value(); }

std::unique_ptr<Kernel> make_max_pooling(const Signature& s) {
  const bool backward = s.node.op == "max_pool2d_backward";
  const Operand& x = backward ? s.outputs[0] : s.inputs[0];
  const Operand& y = backward ? s.inputs[0] : s.outputs[0];
  const auto x_planes = planes_of(x), y_planes = planes_of(y);
  if (!x_planes || !y_planes) return nullptr;
  const Operand* index = backward ? &s.inputs[1] : s.outputs.size() == 2 ? &s.outputs[1] : nullptr;
  if (index != nullptr && (index->type.dtype != DType::kU8 || index->layout != y.layout)) {
    return nullptr;
  }
  return with_float_type(x.type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
    using T = decltype(zero);
    return std::make_unique<MaxPool<T>>(
        MaxPooling<T>{*x_planes, *y_planes, ops::Window2d::of(s.node)}, backward);
  });
}

}  // namespace concord::cpu
#endif

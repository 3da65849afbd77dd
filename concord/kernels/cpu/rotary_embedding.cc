#include <algorithm>
#include <cmath>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/rotary_embedding.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

// Turns the points (x[i], x[half + i]) by the angles of these cosines and sines.
template <typename T>
void rotate(const T* x, const float* cosines, const float* sines, T* y, std::size_t half) {
  for_each_vector(half, [&](auto i, auto n, int) {
    const V a = load(x + i, n), b = load(x + half + i, n);
    const V cosine = load(cosines + i, n), sine = load(sines + i, n);
    store(hn::MulSub(a, cosine, hn::Mul(b, sine)), y + i, n);
    store(hn::MulAdd(a, sine, hn::Mul(b, cosine)), y + half + i, n);
  });
}

void Rotate(const float* x, const float* cosines, const float* sines, float* y, std::size_t half) {
  rotate(x, cosines, sines, y, half);
}
void RotateBF16(const BF16* x, const float* cosines, const float* sines, BF16* y,
                std::size_t half) {
  rotate(x, cosines, sines, y, half);
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(Rotate);
HWY_EXPORT(RotateBF16);

namespace {

template <typename T>
class RotaryEmbedding final : public Kernel {
 public:
  RotaryEmbedding(const Shape& shape, const Attributes& attributes, bool has_position)
      : length_(shape[1]),
        heads_(shape[2]),
        turned_(attributes.integer("heads")),
        half_(shape[3] / 2),
        positions_(shape[0] * shape[1]),
        has_position_(has_position),
        first_position_(attributes.integer("first_position")),
        sign_(attributes.integer("inverse") != 0 ? -1 : 1),
        cosines_(static_cast<std::size_t>(length_ * half_)),
        sines_(cosines_.size()) {
    for (std::int64_t i = 0; i < half_; ++i) {
      const double exponent = -static_cast<double>(i) / static_cast<double>(half_);
      rates_.push_back(std::pow(attributes.real("base"), exponent));
    }
    if (!has_position_) set_angles(first_position_);
  }

  void run(std::span<std::byte* const> operands) override {
    if (has_position_) set_angles(first_position_ + *as<std::int64_t>(operands[1]));
    const T* x = as<T>(operands.front());
    T* y = as<T>(operands.back());
    const std::int64_t width = heads_ * 2 * half_;
    parallel_for(positions_, std::max<std::int64_t>(1, kGrain / width),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t p = begin; p < end; ++p) {
                     turn(x + p * width, p % length_, y + p * width);
                   }
                 });
  }

 private:
  void set_angles(std::int64_t first_position) {
    std::size_t at = 0;
    for (std::int64_t t = 0; t < length_; ++t) {
      for (const double rate : rates_) {
        const double angle = static_cast<double>(first_position + t) * rate;
        cosines_[at] = static_cast<float>(std::cos(angle));
        sines_[at++] = static_cast<float>(sign_ * std::sin(angle));
      }
    }
  }

  // The heads of one position. y may be x.
  void turn(const T* x, std::int64_t t, T* y) const {
    const auto rotate = for_type<T>(HWY_DYNAMIC_DISPATCH(Rotate), HWY_DYNAMIC_DISPATCH(RotateBF16));
    const std::int64_t turned = turned_ * 2 * half_;
    for (std::int64_t at = 0; at < turned; at += 2 * half_) {
      rotate(x + at, cosines_.data() + t * half_, sines_.data() + t * half_, y + at,
             static_cast<std::size_t>(half_));
    }
    if (x != y) std::copy_n(x + turned, (heads_ - turned_) * 2 * half_, y + turned);
  }

  std::int64_t length_, heads_, turned_, half_, positions_;
  bool has_position_;
  std::int64_t first_position_;
  double sign_;
  std::vector<double> rates_;           // of the angles, for each of a head's points
  std::vector<float> cosines_, sines_;  // [length, half], of double precision rounded once
};

const RegisterKernelRule rotary_embedding{{
    .op = "rotary_embedding",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const TensorType& x = s.inputs[0].type;
      return with_float_type(x.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
        return std::make_unique<RotaryEmbedding<decltype(zero)>>(x.shape, s.node.attributes,
                                                                 s.inputs.size() == 2);
      });
    },
    .in_place = element_wise_in_place,
}};

}  // namespace
}  // namespace concord::cpu
#endif

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
void Rotate(const float* x, const float* cosines, const float* sines, float* y, std::size_t half) {
  for_each_vector(half, [&](auto i, auto n, int) {
    const V a = load(x + i, n), b = load(x + half + i, n);
    const V cosine = load(cosines + i, n), sine = load(sines + i, n);
    store(hn::MulSub(a, cosine, hn::Mul(b, sine)), y + i, n);
    store(hn::MulAdd(a, sine, hn::Mul(b, cosine)), y + half + i, n);
  });
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(Rotate);

namespace {

class RotaryEmbedding final : public Kernel {
 public:
  RotaryEmbedding(const Shape& shape, const Attributes& attributes)
      : positions_(shape[-2]), half_(shape[-1] / 2), rows_(shape.elements() / shape[-1]) {
    const double sign = attributes.integer("inverse") != 0 ? -1 : 1;
    for (std::int64_t t = 0; t < positions_; ++t) {
      const auto position = static_cast<double>(attributes.integer("first_position") + t);
      for (std::int64_t i = 0; i < half_; ++i) {
        const double exponent = -static_cast<double>(i) / static_cast<double>(half_);
        const double angle = position * std::pow(attributes.real("base"), exponent);
        cosines_.push_back(static_cast<float>(std::cos(angle)));
        sines_.push_back(static_cast<float>(sign * std::sin(angle)));
      }
    }
  }

  void run(std::span<std::byte* const> operands) override {
    const auto rotate = HWY_DYNAMIC_DISPATCH(Rotate);
    parallel_for(rows_, std::max<std::int64_t>(1, kGrain / (2 * half_)),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t row = begin; row < end; ++row) {
                     const std::int64_t at = row * 2 * half_, table = row % positions_ * half_;
                     rotate(as<float>(operands[0]) + at, cosines_.data() + table,
                            sines_.data() + table, as<float>(operands[1]) + at,
                            static_cast<std::size_t>(half_));
                   }
                 });
  }

 private:
  std::int64_t positions_, half_, rows_;
  std::vector<float> cosines_, sines_;  // [positions, half], of double precision rounded once
};

const RegisterKernelRule rotary_embedding{{
    .op = "rotary_embedding",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      expect_f32(s);
      return std::make_unique<RotaryEmbedding>(s.inputs[0].type.shape, s.node.attributes);
    },
    .in_place = element_wise_in_place,
}};

}  // namespace
}  // namespace concord::cpu
#endif

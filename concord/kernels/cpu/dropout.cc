#include "concord/ops/dropout.h"

#include <algorithm>
#include <bit>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/dropout.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/base/philox-inl.h"
#include "concord/base/philox.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

#ifndef CONCORD_KERNELS_CPU_DROPOUT_ONCE_
#define CONCORD_KERNELS_CPU_DROPOUT_ONCE_
namespace concord::cpu {

// An element is kept where the upper 24 bits of its draw are at least `threshold`.
struct DropoutRule {
  std::int32_t threshold;
  float factor;  // of kept elements
};

inline constexpr std::size_t kDraws = 1024;

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

using DU = hn::ScalableTag<std::uint32_t>;

// y = x where draws keep it, times the factor; else 0.
template <typename T>
void drop(const DropoutRule& rule, const std::uint32_t* draws, const T* x, T* y,
          std::size_t count) {
  const hn::RebindToSigned<D> di;
  const auto threshold = hn::Set(di, rule.threshold);
  const V factor = splat(rule.factor);
  for_each_vector(count, [&](auto i, auto n, int) {
    const auto bits = hn::BitCast(di, hn::ShiftRight<8>(hn::LoadU(DU(), draws + i)));
    const auto dropped = hn::RebindMask(D(), hn::Lt(bits, threshold));
    store(hn::IfThenZeroElse(dropped, hn::Mul(load(x + i, n), factor)), y + i, n);
  });
}

// Elements whose index in the global batch is `first` and following.
template <typename T>
void drop_run(const RandomStream& random, const DropoutRule& rule, std::uint64_t first, const T* x,
              T* y, std::size_t count) {
  HWY_ALIGN std::uint32_t draws[kDraws + hn::MaxLanes(DU())] = {};  // the last vector may be short
  while (count > 0) {
    const std::uint64_t block = first / 4;
    const std::size_t skipped = first % 4;
    const std::size_t taken = std::min(count, kDraws - skipped);
    const std::size_t lanes = hn::Lanes(DU());
    const std::size_t blocks = (skipped + taken + 3) / 4;
    concord::HWY_NAMESPACE::draw(random, block, (blocks + lanes - 1) / lanes * lanes, draws);
    drop(rule, draws + skipped, x, y, taken);
    first += taken;
    x += taken;
    y += taken;
    count -= taken;
  }
}

void Dropout(const RandomStream& random, const DropoutRule& rule, std::uint64_t first,
             const float* x, float* y, std::size_t count) {
  drop_run(random, rule, first, x, y, count);
}
void DropoutBF16(const RandomStream& random, const DropoutRule& rule, std::uint64_t first,
                 const BF16* x, BF16* y, std::size_t count) {
  drop_run(random, rule, first, x, y, count);
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(Dropout);
HWY_EXPORT(DropoutBF16);

namespace {

template <typename T>
class DropoutKernel final : public Kernel {
 public:
  DropoutKernel(const Node& node, const Shape& shape)
      : random_{.seed = std::bit_cast<std::uint64_t>(node.attributes.integer("seed")),
                .stream = static_cast<std::uint32_t>(node.attributes.integer("stream"))},
        // A draw is uniform01(bits) = (bits >> 8) / 2^24; it keeps where it is at least the rate.
        rule_{static_cast<std::int32_t>(std::ceil(node.attributes.real("rate") * 16777216.0)),
              static_cast<float>(1 / (1 - node.attributes.real("rate")))},
        elements_(shape.elements()),
        place_(ops::dropout_place(node, shape)) {}

  void run(std::span<std::byte* const> operands) override {
    const auto* position = as<std::int64_t>(operands[1]);
    RandomStream random = random_;
    random.step = static_cast<std::uint32_t>(position[0]);
    const std::int64_t first = position[1] * place_.sample_elements;
    const auto drop = for_type<T>(HWY_DYNAMIC_DISPATCH(Dropout), HWY_DYNAMIC_DISPATCH(DropoutBF16));
    parallel_for(elements_, kGrain / 4, [&](std::int64_t begin, std::int64_t end) {
      while (begin < end) {
        const std::int64_t count = std::min(end - begin, place_.run - begin % place_.run);
        drop(random, rule_, static_cast<std::uint64_t>(first + place_.of(begin)),
             as<T>(operands[0]) + begin, as<T>(operands[2]) + begin,
             static_cast<std::size_t>(count));
        begin += count;
      }
    });
  }

 private:
  RandomStream random_;
  DropoutRule rule_;
  std::int64_t elements_;
  ops::DropoutPlace place_;
};

const RegisterKernelRule dropout{{
    .op = "dropout",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const TensorType& x = s.inputs[0].type;
      return with_float_type(x.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
        return std::make_unique<DropoutKernel<decltype(zero)>>(s.node, x.shape);
      });
    },
    .in_place = element_wise_in_place,
}};

}  // namespace
}  // namespace concord::cpu
#endif

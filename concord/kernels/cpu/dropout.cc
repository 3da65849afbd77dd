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
using VU = hn::Vec<DU>;

// draws[i] = random.bits(4 * block + i) for i in [0, 4 * blocks). `blocks` is a multiple of Lanes.
#if HWY_TARGET == HWY_SCALAR
void draw(const RandomStream& random, std::uint64_t block, std::size_t blocks,
          std::uint32_t* draws) {
  for (std::size_t i = 0; i < blocks; ++i) {
    const PhiloxBlock words = random.block(block + i);
    std::copy(words.begin(), words.end(), draws + 4 * i);
  }
}
#else
// The upper and lower words of a * b.
struct Product {
  VU high, low;
};
Product multiply(VU a, std::uint32_t b) {
  const DU d;
  const hn::RepartitionToWide<DU> wide;
  const VU factor = hn::Set(d, b);
  const auto even = hn::MulEven(a, factor);
  const VU odd_lanes = hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, a)));
  const VU odd = hn::BitCast(d, hn::MulEven(odd_lanes, factor));
  const VU even_high = hn::BitCast(d, hn::ShiftRight<32>(even));
  return {hn::OddEven(odd, even_high), hn::Mul(a, factor)};
}

// Philox (base/philox.h) with one block in each lane.
void draw(const RandomStream& random, std::uint64_t block, std::size_t blocks,
          std::uint32_t* draws) {
  const DU d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < blocks; i += lanes) {
    HWY_ALIGN std::uint32_t low[hn::MaxLanes(DU())], high[hn::MaxLanes(DU())];
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      low[lane] = static_cast<std::uint32_t>(block + i + lane);
      high[lane] = static_cast<std::uint32_t>((block + i + lane) >> 32);
    }
    VU c0 = hn::Load(d, low), c1 = hn::Load(d, high);
    VU c2 = hn::Set(d, random.step), c3 = hn::Set(d, random.stream);
    auto key0 = static_cast<std::uint32_t>(random.seed);
    auto key1 = static_cast<std::uint32_t>(random.seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const Product p0 = multiply(c0, 0xD2511F53), p1 = multiply(c2, 0xCD9E8D57);
      c0 = hn::Xor(hn::Xor(p1.high, c1), hn::Set(d, key0));
      c1 = p1.low;
      c2 = hn::Xor(hn::Xor(p0.high, c3), hn::Set(d, key1));
      c3 = p0.low;
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    hn::StoreInterleaved4(c0, c1, c2, c3, d, draws + 4 * i);
  }
}
#endif

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
    draw(random, block, (blocks + lanes - 1) / lanes * lanes, draws);
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

// Vectors of factors, f32 or pairs of bf16, and their products, which are added up in f32; compiled
// once for each instruction set, like vector_math-inl.h.
#if defined(CONCORD_KERNELS_CPU_BF16_PAIR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CONCORD_KERNELS_CPU_BF16_PAIR_INL_H_
#undef CONCORD_KERNELS_CPU_BF16_PAIR_INL_H_
#else
#define CONCORD_KERNELS_CPU_BF16_PAIR_INL_H_
#endif

#include "concord/kernels/cpu/bf16_pair.h"
#include "concord/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {

using DPairs = hn::RebindToUnsigned<D>;
using Pairs = hn::Vec<DPairs>;

HWY_INLINE V load_factors(const float* data) { return hn::LoadU(D(), data); }
HWY_INLINE Pairs load_factors(const BF16Pair* data) {
  return hn::LoadU(DPairs(), reinterpret_cast<const std::uint32_t*>(data));
}

// One factor in all lanes.
HWY_INLINE V repeat_factor(const float* data) { return hn::Set(D(), *data); }
HWY_INLINE Pairs repeat_factor(const BF16Pair* data) { return hn::Set(DPairs(), data->bits); }

// Each of a vector of numbers paired with zero.
HWY_INLINE Pairs load_halves(const BF16* data) {
  const hn::Rebind<std::uint16_t, D> halves;
  return hn::PromoteTo(DPairs(), hn::LoadU(halves, reinterpret_cast<const std::uint16_t*>(data)));
}

// a b + sum; of pairs, both products are added. AVX-512 takes an instruction for pairs, which the
// processor must have (instruction_set.h), others two.
HWY_INLINE V add_product(V a, V b, V sum) { return hn::MulAdd(a, b, sum); }
HWY_INLINE V add_product(Pairs a, Pairs b, V sum) {
#if CONCORD_NATIVE_BF16
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
  return sum;
#else
  const D d;
  const Pairs second = hn::Set(DPairs(), 0xffff0000u);
  sum = hn::MulAdd(hn::BitCast(d, hn::And(a, second)), hn::BitCast(d, hn::And(b, second)), sum);
  return hn::MulAdd(hn::BitCast(d, hn::ShiftLeft<16>(a)), hn::BitCast(d, hn::ShiftLeft<16>(b)),
                    sum);
#endif
}

// pairs[i] = (first[i], second[i]) for i in [0, count); a null second is zeros.
inline void pair_up(const BF16* first, const BF16* second, BF16Pair* pairs, std::int64_t count) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
  auto* to = reinterpret_cast<std::uint32_t*>(pairs);
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    Pairs pair = load_halves(first + i);
    if (second != nullptr) pair = hn::Or(pair, hn::ShiftLeft<16>(load_halves(second + i)));
    hn::StoreU(pair, DPairs(), to + i);
  }
  for (; i < count; ++i) {
    const std::uint32_t upper = second == nullptr ? 0 : second[i].bits;
    to[i] = first[i].bits | upper << 16;
  }
}

}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // CONCORD_KERNELS_CPU_BF16_PAIR_INL_H_

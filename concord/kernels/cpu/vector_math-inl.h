// Vector helpers on top of Highway, compiled once for each instruction set: included by .cc files
// after hwy/highway.h. (The guard toggles because foreach_target.h includes the file repeatedly.)
#if defined(CONCORD_KERNELS_CPU_VECTOR_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CONCORD_KERNELS_CPU_VECTOR_MATH_INL_H_
#undef CONCORD_KERNELS_CPU_VECTOR_MATH_INL_H_
#else
#define CONCORD_KERNELS_CPU_VECTOR_MATH_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "concord/kernels/cpu/instruction_set.h"
#include "concord/tensor/dtype.h"

// Whether to write instructions for bf16, which Highway 1.0.3 does not know, by hand.
#undef CONCORD_NATIVE_BF16
#if HWY_ARCH_X86_64 && HWY_COMPILER_GCC && (HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL)
#define CONCORD_NATIVE_BF16 1
#else
#define CONCORD_NATIVE_BF16 0
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// A vector of elements at `data`. Whatever their type, kernels compute in f32.
HWY_INLINE V load_vector(D d, const float* data) { return hn::LoadU(d, data); }
HWY_INLINE V load_vector(D d, const BF16* data) {
  const hn::Rebind<std::uint16_t, D> halves;
  const hn::RebindToUnsigned<D> bits;
  const auto upper = hn::LoadU(halves, reinterpret_cast<const std::uint16_t*>(data));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(bits, upper)));
}

// The conversion of tensor/dtype.h: Highway's own cuts the lower half off. The processor's own also
// makes 0 of numbers below the smallest normal one.
HWY_INLINE void store_vector(D d, V v, float* data) { hn::StoreU(v, d, data); }
HWY_INLINE void store_vector(D, V v, BF16* data) {
#if CONCORD_NATIVE_BF16
  if (kHasAvx512Bf16) {
    __m256i halves;
    asm("vcvtneps2bf16 %1, %0" : "=v"(halves) : "v"(v.raw));
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(data), halves);
  }
#endif
  const hn::Rebind<std::uint16_t, D> halves;
  const hn::RebindToUnsigned<D> bits;
  const hn::RebindToSigned<D> integers;
  const auto wide = hn::BitCast(bits, v);
  const auto odd = hn::And(hn::ShiftRight<16>(wide), hn::Set(bits, 1));
  const auto rounded = hn::Add(wide, hn::Add(odd, hn::Set(bits, 0x7fff)));
  const auto quiet = hn::Or(wide, hn::Set(bits, 0x400000));
  const auto upper =
      hn::ShiftRight<16>(hn::IfThenElse(hn::RebindMask(bits, hn::IsNaN(v)), quiet, rounded));
  hn::StoreU(hn::DemoteTo(halves, hn::BitCast(integers, upper)), halves,
             reinterpret_cast<std::uint16_t*>(data));
}

// The first `count` < Lanes(d) elements at `data`; the other lanes hold `rest`.
template <typename T>
HWY_INLINE V load_first(D d, const T* data, std::size_t count, float rest = 0) {
  HWY_ALIGN float lanes[hn::MaxLanes(D())];
  std::fill(lanes, lanes + hn::MaxLanes(D()), rest);
  for (std::size_t i = 0; i < count; ++i) lanes[i] = static_cast<float>(data[i]);
  return hn::Load(d, lanes);
}

// Writes the first `count` < Lanes(d) lanes of v to `data`.
template <typename T>
HWY_INLINE void store_first(D d, V v, T* data, std::size_t count) {
  HWY_ALIGN T lanes[hn::MaxLanes(D())];
  store_vector(d, v, lanes);
  std::copy_n(lanes, count, data);
}

// e^x with infinity and NaN as std::exp gives them; Highway's holds up to 104 and loses NaN.
HWY_INLINE V exp(D d, V x) {
  const V y = hn::Exp(d, hn::Min(x, hn::Set(d, 104.0f)));
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// e^x for x below about 0 (up to 88), as softmax needs it, in half the instructions: results below
// the smallest normal number are 0. The relative error stays below 1e-7. NaN stays NaN.
HWY_INLINE V exp_below_zero(D d, V x) {
  // x = n ln 2 + r with an integer n: numbers of the size of 2^23 have no fraction, so adding one
  // rounds, and leaves n + 127, the exponent of 2^n, in the lowest bits.
  const hn::RebindToUnsigned<D> bits;
  const V offset = hn::Set(d, 0x1.8p23f + 127);
  const V shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), offset);
  const V two_to_n = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(bits, shifted)));
  const V n = hn::Sub(shifted, offset);
  // ln 2 in two parts: n times the first is exact.
  const V r =
      hn::NegMulAdd(n, hn::Set(d, 1.42860682e-6f), hn::NegMulAdd(n, hn::Set(d, 0.693145752f), x));
  // e^r = 1 + r + ..., of least relative error for |r| <= ln(2) / 2.
  V y = hn::Set(d, 1.38145312e-3f);
  y = hn::MulAdd(y, r, hn::Set(d, 8.36874592e-3f));
  y = hn::MulAdd(y, r, hn::Set(d, 4.16683909e-2f));
  y = hn::MulAdd(y, r, hn::Set(d, 0.166665204f));
  y = hn::MulAdd(y, r, hn::Set(d, 0.499999934f));
  y = hn::MulAdd(y, r, hn::Set(d, 1.0f));
  y = hn::MulAdd(y, r, hn::Set(d, 1.0f));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.3f)), hn::Mul(y, two_to_n));
}

// ln x as std::log gives it; Highway's holds for positive finite numbers.
HWY_INLINE V log(D d, V x) {
  const V infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  const V nan = hn::Set(d, std::numeric_limits<float>::quiet_NaN());
  const V zero = hn::Zero(d);
  const V y = hn::IfThenElse(hn::Eq(x, infinity), x, hn::Log(d, x));
  const V outside = hn::IfThenElse(hn::Eq(x, zero), hn::Neg(infinity), nan);
  return hn::IfThenElse(hn::Gt(x, zero), y, outside);
}

}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // CONCORD_KERNELS_CPU_VECTOR_MATH_INL_H_

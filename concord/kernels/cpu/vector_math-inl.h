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
#include <limits>

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// The first `count` < Lanes(d) elements at `data`; the other lanes hold `rest`.
HWY_INLINE V load_first(D d, const float* data, std::size_t count, float rest = 0) {
  HWY_ALIGN float lanes[hn::MaxLanes(D())];
  std::fill(lanes, lanes + hn::MaxLanes(D()), rest);
  std::copy_n(data, count, lanes);
  return hn::Load(d, lanes);
}

// Writes the first `count` < Lanes(d) lanes of v to `data`.
HWY_INLINE void store_first(D d, V v, float* data, std::size_t count) {
  HWY_ALIGN float lanes[hn::MaxLanes(D())];
  hn::Store(v, d, lanes);
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

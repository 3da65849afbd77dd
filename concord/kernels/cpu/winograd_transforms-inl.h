// The transforms of Winograd's F(4x4, 3x3) (Lavin, Gray 2016, section 4.1) and their transposes, on
// vectors of channels; compiled once for each instruction set, like vector_math-inl.h.
//
// They evaluate polynomials at the points 0, a, -a, b, -b and infinity. Lavin and Gray take a = 1
// and b = 2. Points nearer to each other round less (Barabasz et al. 2020): with 5/8 and 3/2, which
// floating point holds exactly, as it does the elements of A and B, the error halves.
//
//         [ a^2 b^2    0   -a^2-b^2     0     1  0 ]          [ 1  1    1   1    1   0 ]
//         [    0    -a b^2   -b^2       a     1  0 ]    A^T = [ 0  a   -a   b   -b   0 ]
//   B^T = [    0     a b^2   -b^2      -a     1  0 ]          [ 0 a^2  a^2 b^2  b^2  0 ]
//         [    0    -a^2 b   -a^2       b     1  0 ]          [ 0 a^3 -a^3 b^3 -b^3  1 ]
//         [    0     a^2 b   -a^2      -b     1  0 ]
//         [    0   a^2 b^2     0    -a^2-b^2  0  1 ]    G as F(4, 3) demands: rows (1, p, p^2) of
//                                                       each point p, divided by the product of
//                                                       its distances to the others; (0, 0, 1).
#if defined(CONCORD_KERNELS_CPU_WINOGRAD_TRANSFORMS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CONCORD_KERNELS_CPU_WINOGRAD_TRANSFORMS_INL_H_
#undef CONCORD_KERNELS_CPU_WINOGRAD_TRANSFORMS_INL_H_
#else
#define CONCORD_KERNELS_CPU_WINOGRAD_TRANSFORMS_INL_H_
#endif

#include "concord/kernels/cpu/vector_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

constexpr float kA = 0.625f, kB = 1.5f;
constexpr float kA2 = kA * kA, kB2 = kB * kB;
// The rows of G of 0, of a and -a, and of b and -b, are multiplied by these.
constexpr float kG0 = 1 / (kA2 * kB2);
constexpr float kGA = 1 / (2 * kA2 * (kA2 - kB2)), kGB = 1 / (2 * kB2 * (kB2 - kA2));

// Transforms of one dim: `from` numbers to `to`. x y + z and z - x y for a number x:
HWY_INLINE V add_times(float x, V y, V z) { return hn::MulAdd(splat(x), y, z); }
HWY_INLINE V sub_times(float x, V y, V z) { return hn::NegMulAdd(splat(x), y, z); }
HWY_INLINE V times(float x, V y) { return hn::Mul(splat(x), y); }

struct TransposedB {
  static constexpr int from = 6, to = 6;
  static HWY_INLINE void apply(const V (&x)[6], V (&y)[6]) {
    const V even_a = sub_times(kB2, x[2], x[4]), odd_a = sub_times(kB2, x[1], x[3]);
    const V even_b = sub_times(kA2, x[2], x[4]), odd_b = sub_times(kA2, x[1], x[3]);
    y[0] = add_times(kA2 * kB2, x[0], sub_times(kA2 + kB2, x[2], x[4]));
    y[1] = add_times(kA, odd_a, even_a);
    y[2] = sub_times(kA, odd_a, even_a);
    y[3] = add_times(kB, odd_b, even_b);
    y[4] = sub_times(kB, odd_b, even_b);
    y[5] = add_times(kA2 * kB2, x[1], sub_times(kA2 + kB2, x[3], x[5]));
  }
};

struct TimesB {
  static constexpr int from = 6, to = 6;
  static HWY_INLINE void apply(const V (&x)[6], V (&y)[6]) {
    const V even_a = hn::Add(x[1], x[2]), odd_a = times(kA, hn::Sub(x[1], x[2]));
    const V even_b = hn::Add(x[3], x[4]), odd_b = times(kB, hn::Sub(x[3], x[4]));
    y[0] = times(kA2 * kB2, x[0]);
    y[1] = sub_times(kB2, odd_a, sub_times(kA2, odd_b, times(kA2 * kB2, x[5])));
    y[2] = sub_times(kB2, even_a, sub_times(kA2, even_b, times(-(kA2 + kB2), x[0])));
    y[3] = sub_times(kA2 + kB2, x[5], hn::Add(odd_a, odd_b));
    y[4] = hn::Add(x[0], hn::Add(even_a, even_b));
    y[5] = x[5];
  }
};

struct TransposedA {
  static constexpr int from = 6, to = 4;
  static HWY_INLINE void apply(const V (&x)[6], V (&y)[4]) {
    const V even_a = hn::Add(x[1], x[2]), odd_a = times(kA, hn::Sub(x[1], x[2]));
    const V even_b = hn::Add(x[3], x[4]), odd_b = times(kB, hn::Sub(x[3], x[4]));
    y[0] = hn::Add(x[0], hn::Add(even_a, even_b));
    y[1] = hn::Add(odd_a, odd_b);
    y[2] = add_times(kA2, even_a, times(kB2, even_b));
    y[3] = add_times(kA2, odd_a, add_times(kB2, odd_b, x[5]));
  }
};

struct TimesA {
  static constexpr int from = 4, to = 6;
  static HWY_INLINE void apply(const V (&x)[4], V (&y)[6]) {
    const V even_a = add_times(kA2, x[2], x[0]), odd_a = add_times(kA2, x[3], x[1]);
    const V even_b = add_times(kB2, x[2], x[0]), odd_b = add_times(kB2, x[3], x[1]);
    y[0] = x[0];
    y[1] = add_times(kA, odd_a, even_a);
    y[2] = sub_times(kA, odd_a, even_a);
    y[3] = add_times(kB, odd_b, even_b);
    y[4] = sub_times(kB, odd_b, even_b);
    y[5] = x[3];
  }
};

struct TimesG {
  static constexpr int from = 3, to = 6;
  static HWY_INLINE void apply(const V (&x)[3], V (&y)[6]) {
    const V even_a = add_times(kGA, x[0], times(kGA * kA2, x[2])), odd_a = times(kGA * kA, x[1]);
    const V even_b = add_times(kGB, x[0], times(kGB * kB2, x[2])), odd_b = times(kGB * kB, x[1]);
    y[0] = times(kG0, x[0]);
    y[1] = hn::Add(even_a, odd_a);
    y[2] = hn::Sub(even_a, odd_a);
    y[3] = hn::Add(even_b, odd_b);
    y[4] = hn::Sub(even_b, odd_b);
    y[5] = x[2];
  }
};

struct TransposedG {
  static constexpr int from = 6, to = 3;
  static HWY_INLINE void apply(const V (&x)[6], V (&y)[3]) {
    const V even_a = times(kGA, hn::Add(x[1], x[2])), odd_a = hn::Sub(x[1], x[2]);
    const V even_b = times(kGB, hn::Add(x[3], x[4])), odd_b = hn::Sub(x[3], x[4]);
    y[0] = add_times(kG0, x[0], hn::Add(even_a, even_b));
    y[1] = add_times(kGA * kA, odd_a, times(kGB * kB, odd_b));
    y[2] = add_times(kA2, even_a, add_times(kB2, even_b, x[5]));
  }
};

// Rows kBegin to kEnd of F X F^T.
template <typename F, int kBegin, int kEnd, typename Load, typename Store>
HWY_INLINE void transform_rows(Load load, Store store) {
  V rows[kEnd - kBegin][F::from];
#pragma GCC unroll 6
  for (int j = 0; j < F::from; ++j) {
    V column[F::from], result[F::to];
#pragma GCC unroll 6
    for (int i = 0; i < F::from; ++i) column[i] = load(i, j);
    F::apply(column, result);
#pragma GCC unroll 6
    for (int i = kBegin; i < kEnd; ++i) rows[i - kBegin][j] = result[i];
  }
#pragma GCC unroll 6
  for (int i = kBegin; i < kEnd; ++i) {
    V result[F::to];
    F::apply(rows[i - kBegin], result);
#pragma GCC unroll 6
    for (int j = 0; j < F::to; ++j) store(i, j, result[j]);
  }
}

// F X F^T of a matrix X of vectors, whose elements load(i, j) gives and store(i, j, v) takes. What
// is loaded twice takes no register meanwhile: 36 are more than there are.
template <typename F, typename Load, typename Store>
HWY_INLINE void transform(Load load, Store store) {
  if constexpr (F::from * F::to == 36) {
    transform_rows<F, 0, 3>(load, store);
    transform_rows<F, 3, 6>(load, store);
  } else {
    transform_rows<F, 0, F::to>(load, store);
  }
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // CONCORD_KERNELS_CPU_WINOGRAD_TRANSFORMS_INL_H_

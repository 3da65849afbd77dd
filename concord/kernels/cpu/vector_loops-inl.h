// Loops over runs of f32 or bf16 in vectors of f32, and sums along them, on top of Highway:
// included by .cc files after hwy/highway.h. (The guard toggles because foreach_target.h includes
// the file repeatedly.)
#if defined(CONCORD_KERNELS_CPU_VECTOR_LOOPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CONCORD_KERNELS_CPU_VECTOR_LOOPS_INL_H_
#undef CONCORD_KERNELS_CPU_VECTOR_LOOPS_INL_H_
#else
#define CONCORD_KERNELS_CPU_VECTOR_LOOPS_INL_H_
#endif

#include "concord/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

HWY_INLINE V splat(float x) { return hn::Set(D(), x); }

// `count` elements, at most a vector, from `data` on; the other lanes hold `rest`.
template <typename T>
HWY_INLINE V load(const T* data, std::size_t count, float rest = 0) {
  const D d;
  return count >= hn::Lanes(d) ? load_vector(d, data) : load_first(d, data, count, rest);
}

template <typename T>
HWY_INLINE void store(V v, T* data, std::size_t count) {
  const D d;
  if (count >= hn::Lanes(d)) return store_vector(d, v, data);
  store_first(d, v, data, count);
}

// Calls f(i, n, k) for vectors of n elements that begin at i and cover [0, count). k counts to 4
// again and again: sums that take turns do not wait for each other.
template <typename F>
HWY_INLINE void for_each_vector(std::size_t count, F f) {
  const std::size_t lanes = hn::Lanes(D());
  std::size_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    f(i, lanes, 0);
    f(i + lanes, lanes, 1);
    f(i + 2 * lanes, lanes, 2);
    f(i + 3 * lanes, lanes, 3);
  }
  for (; i + lanes <= count; i += lanes) f(i, lanes, 0);
  if (i < count) f(i, count - i, 1);
}

class Sum {
 public:
  // Not a default member initializer, which would be compiled for the baseline instruction set.
  Sum() {
    for (V& part : parts_) part = hn::Zero(D());
  }
  void add(int k, V x) { parts_[k] = hn::Add(parts_[k], x); }
  void add_product(int k, V a, V b) { parts_[k] = hn::MulAdd(a, b, parts_[k]); }
  float total() const {
    const V all = hn::Add(hn::Add(parts_[0], parts_[1]), hn::Add(parts_[2], parts_[3]));
    return hn::GetLane(hn::SumOfLanes(D(), all));
  }

 private:
  V parts_[4];
};

// In double, since the square of a float may be more than one holds.
HWY_INLINE double sum_of_squares(const float* x, std::size_t count) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const std::size_t lanes = hn::Lanes(d);
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  std::size_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    const auto a = hn::PromoteTo(d, hn::LoadU(df, x + i));
    const auto b = hn::PromoteTo(d, hn::LoadU(df, x + i + lanes));
    sum0 = hn::MulAdd(a, a, sum0);
    sum1 = hn::MulAdd(b, b, sum1);
  }
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
  for (; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // CONCORD_KERNELS_CPU_VECTOR_LOOPS_INL_H_

// Loops over runs of f32 for the optimizers' kernels, on top of Highway: included by .cc files
// after hwy/highway.h. (The guard toggles because foreach_target.h includes the file repeatedly.)
#if defined(CONCORD_KERNELS_CPU_UPDATE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CONCORD_KERNELS_CPU_UPDATE_INL_H_
#undef CONCORD_KERNELS_CPU_UPDATE_INL_H_
#else
#define CONCORD_KERNELS_CPU_UPDATE_INL_H_
#endif

#include "concord/kernels/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

HWY_INLINE V constant(float value) { return hn::Set(D(), value); }

// Calls f(load, store) so that it covers [0, count); the last call moves fewer elements.
template <typename F>
HWY_INLINE void for_each_vector(std::size_t count, F f) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    f([=](const float* x) { return hn::LoadU(d, x + i); },
      [=](V v, float* y) { hn::StoreU(v, d, y + i); });
  }
  if (i == count) return;
  f([=](const float* x) { return load_first(d, x + i, count - i); },
    [=](V v, float* y) { store_first(d, v, y + i, count - i); });
}

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

#endif  // CONCORD_KERNELS_CPU_UPDATE_INL_H_

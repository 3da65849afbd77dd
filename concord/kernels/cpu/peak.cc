#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/peak.cc"
#include "concord/kernels/cpu/peak.h"

#include <hwy/foreach_target.h>  // must come before highway.h
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Enough independent sums to hide the latency of an FMA (4 or 5 cycles, 2 a cycle), few enough to
// stay in 16 registers beside the factor and the addend.
constexpr int kChains = 12;

// Each round multiplies by a factor below 1 and adds, so that values stay finite and normal.
// Returns the FLOPs done; `sink` keeps the compiler from leaving the work out.
HWY_ATTR double fma_rounds(std::int64_t rounds, float* sink) {
  const hn::ScalableTag<float> tag;
  const auto factor = hn::Set(tag, 0.5f);
  const auto addend = hn::Set(tag, 1.0f);
  // Different values: equal chains would be computed once.
  auto x0 = hn::Iota(tag, 0.0f);
  auto x1 = hn::Iota(tag, 1.0f);
  auto x2 = hn::Iota(tag, 2.0f);
  auto x3 = hn::Iota(tag, 3.0f);
  auto x4 = hn::Iota(tag, 4.0f);
  auto x5 = hn::Iota(tag, 5.0f);
  auto x6 = hn::Iota(tag, 6.0f);
  auto x7 = hn::Iota(tag, 7.0f);
  auto x8 = hn::Iota(tag, 8.0f);
  auto x9 = hn::Iota(tag, 9.0f);
  auto x10 = hn::Iota(tag, 10.0f);
  auto x11 = hn::Iota(tag, 11.0f);
  for (std::int64_t i = 0; i < rounds; ++i) {
    x0 = hn::MulAdd(x0, factor, addend);
    x1 = hn::MulAdd(x1, factor, addend);
    x2 = hn::MulAdd(x2, factor, addend);
    x3 = hn::MulAdd(x3, factor, addend);
    x4 = hn::MulAdd(x4, factor, addend);
    x5 = hn::MulAdd(x5, factor, addend);
    x6 = hn::MulAdd(x6, factor, addend);
    x7 = hn::MulAdd(x7, factor, addend);
    x8 = hn::MulAdd(x8, factor, addend);
    x9 = hn::MulAdd(x9, factor, addend);
    x10 = hn::MulAdd(x10, factor, addend);
    x11 = hn::MulAdd(x11, factor, addend);
  }
  auto sum = hn::Add(hn::Add(hn::Add(x0, x1), hn::Add(x2, x3)), hn::Add(hn::Add(x4, x5), x6));
  sum = hn::Add(sum, hn::Add(hn::Add(x7, x8), hn::Add(hn::Add(x9, x10), x11)));
  *sink = hn::GetLane(sum);
  return static_cast<double>(rounds) * kChains * 2 * static_cast<double>(hn::Lanes(tag));
}

HWY_ATTR void triad(float* HWY_RESTRICT a, const float* HWY_RESTRICT b, const float* HWY_RESTRICT c,
                    std::int64_t begin, std::int64_t end) {
  const hn::ScalableTag<float> tag;
  const auto factor = hn::Set(tag, 3.0f);
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(tag));
  std::int64_t i = begin;
  for (; i + lanes <= end; i += lanes) {
    hn::StoreU(hn::MulAdd(factor, hn::LoadU(tag, c + i), hn::LoadU(tag, b + i)), tag, a + i);
  }
  for (; i < end; ++i) a[i] = b[i] + 3.0f * c[i];
}

const char* target_name() { return hwy::TargetName(HWY_TARGET); }

}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <hwy/aligned_allocator.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "concord/base/clock.h"
#include "concord/base/error.h"
#include "concord/base/parallel.h"

namespace concord::cpu {
namespace {

HWY_EXPORT(fma_rounds);
HWY_EXPORT(triad);
HWY_EXPORT(target_name);

// FLOPs per second of the calling thread: the best of several short runs, so that on a busy machine
// one of them is left alone.
double thread_peak_flops() {
  constexpr double kRunSeconds = 0.002;
  constexpr int kRuns = 20;
  std::int64_t rounds = 1 << 12;
  double best = 0;
  float sink = 0;
  const auto run = [&] {
    const double start = now_seconds();
    const double flops = HWY_DYNAMIC_DISPATCH(fma_rounds)(rounds, &sink);
    best = std::max(best, flops / (now_seconds() - start));
    return flops;
  };
  // An interrupted run must not pass for a long one: hence the rounds that the best speed fits.
  double flops = run();
  while (flops < best * kRunSeconds) {
    rounds *= 2;
    flops = run();
  }
  for (int i = 0; i < kRuns; ++i) run();
  return best;
}

}  // namespace

double measure_peak_flops() {
  const std::int64_t threads = compute_threads();
  std::vector<double> flops(static_cast<std::size_t>(threads));
  parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      flops[static_cast<std::size_t>(t)] = thread_peak_flops();
    }
  });
  return std::accumulate(flops.begin(), flops.end(), 0.0);
}

double measure_memory_bandwidth(std::size_t cache_bytes) {
  constexpr std::size_t kLeastBytes = std::size_t{96} << 20;
  constexpr std::size_t kMostBytes = std::size_t{3} << 30;  // caches larger than that are not met
  constexpr int kRuns = 6;
  const std::size_t total = std::clamp(4 * cache_bytes, kLeastBytes, kMostBytes);
  const auto count = static_cast<std::int64_t>(total / (3 * sizeof(float)));
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(float);
  const auto a = hwy::AllocateAligned<float>(static_cast<std::size_t>(count));
  const auto b = hwy::AllocateAligned<float>(static_cast<std::size_t>(count));
  const auto c = hwy::AllocateAligned<float>(static_cast<std::size_t>(count));
  if (!a || !b || !c) fail("measuring the memory's speed needs {} bytes of it", 3 * bytes);
  float *const to = a.get(), *const left = b.get(), *const right = c.get();
  // Each thread touches first what it will read, so that pages lie near it.
  parallel_for(count, 1, [=](std::int64_t begin, std::int64_t end) {
    std::fill(to + begin, to + end, 0.0f);
    std::fill(left + begin, left + end, 1.0f);
    std::fill(right + begin, right + end, 2.0f);
  });
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kRuns; ++i) {
    const double start = now_seconds();
    parallel_for(count, 1, [=](std::int64_t begin, std::int64_t end) {
      HWY_DYNAMIC_DISPATCH(triad)(to, left, right, begin, end);
    });
    least = std::min(least, now_seconds() - start);
  }
  return 3.0 * static_cast<double>(bytes) / least;
}

std::string vector_instruction_set() { return HWY_DYNAMIC_DISPATCH(target_name)(); }

}  // namespace concord::cpu
#endif  // HWY_ONCE

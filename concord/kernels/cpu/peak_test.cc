#include "concord/kernels/cpu/peak.h"

#include <gtest/gtest.h>

#include "concord/base/clock.h"
#include "concord/base/parallel.h"

namespace concord::cpu {
namespace {

// Plain scalar multiply-adds in chains: what any processor does, and far below its peak.
double scalar_flops() {
  volatile float factor = 0.5f;
  const float f = factor;
  float x = 1;
  constexpr int kRounds = 1 << 20;
  const double start = now_seconds();
  for (int i = 0; i < kRounds; ++i) x = x * f + 1.0f;
  const double seconds = now_seconds() - start;
  factor = x;
  return 2.0 * kRounds / seconds;
}

TEST(Peak, IsAboveScalarCodeAndBelowWhatNoProcessorReaches) {
  const double peak = measure_peak_flops();
  EXPECT_GT(peak, scalar_flops());
  EXPECT_LT(peak, compute_threads() * 1e12);
}

TEST(Peak, BandwidthIsBelowWhatNoMemoryReaches) {
  const double bandwidth = measure_memory_bandwidth(0);
  EXPECT_GT(bandwidth, 1e8);
  EXPECT_LT(bandwidth, 1e13);
}

TEST(Peak, NamesAnInstructionSet) { EXPECT_FALSE(vector_instruction_set().empty()); }

}  // namespace
}  // namespace concord::cpu

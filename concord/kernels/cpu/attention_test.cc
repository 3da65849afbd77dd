#include "concord/ops/attention.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <limits>

#include "concord/kernels/kernel_check.h"

namespace concord::cpu {
namespace {

using Inputs = std::vector<ValueId>;

// In bf16 probabilities and gradients of scores are rounded to it before they are multiplied.
constexpr double kBf16Tolerance = 1e-2;

struct Sizes {
  std::int64_t samples, heads, groups, queries, keys, head_size;
};

KernelCheck separate(const Sizes& s, const ops::AttentionOptions& options) {
  const TensorType q{DType::kF32, {s.samples, s.queries, s.heads, s.head_size}};
  const TensorType k{DType::kF32, {s.samples, s.keys, s.groups, s.head_size}};
  return {.inputs = {q, k, k},
          .build = [=](GraphBuilder& b,
                       const Inputs& x) { ops::attention(b, x[0], x[1], x[2], options); },
          .bf16_tolerance = kBf16Tolerance,
          .any_threads = true};
}

KernelCheck packed(const Sizes& s, const ops::AttentionOptions& options) {
  const std::int64_t stored = s.heads + 2 * s.groups;
  return {.inputs = {{DType::kF32, {s.samples, s.queries, stored, s.head_size}}},
          .build = [=](GraphBuilder& b,
                       const Inputs& x) { ops::packed_attention(b, x[0], s.groups, options); },
          .bf16_tolerance = kBf16Tolerance,
          .any_threads = true};
}

// One block and several, whole and cut; fewer groups than threads and more.
const std::vector<Sizes> kGrid = {
    {1, 1, 1, 1, 1, 1},    {1, 1, 1, 1, 70, 5},     {2, 3, 3, 7, 9, 4},    {1, 4, 2, 33, 33, 16},
    {1, 1, 1, 64, 64, 64}, {1, 2, 1, 65, 129, 20},  {2, 4, 1, 70, 70, 37}, {1, 6, 2, 130, 200, 8},
    {3, 2, 2, 5, 128, 70}, {1, 1, 1, 200, 200, 33},
};

TEST(CpuKernel, Attention) {
  for (const Sizes& sizes : kGrid) {
    for (const bool causal : {false, true}) {
      EXPECT_EQ("", check_kernels(separate(sizes, {.causal = causal})))
          << sizes.queries << " queries, " << sizes.keys << " keys, causal " << causal;
    }
  }
  EXPECT_EQ("", check_kernels(separate({2, 2, 2, 70, 40, 6}, {.scale = -0.7})));
}

TEST(CpuKernel, PackedAttention) {
  for (const Sizes& sizes : kGrid) {
    for (const bool causal : {false, true}) {
      EXPECT_EQ("", check_kernels(packed(sizes, {.causal = causal})))
          << sizes.queries << " queries, causal " << causal;
    }
  }
}

// What lies after the last position that a query sees is not read.
TEST(CpuKernel, CachedAttention) {
  for (const Sizes& s : kGrid) {
    for (const std::int64_t position :
         {std::int64_t{0}, (s.keys - s.queries) / 2, s.keys - s.queries}) {
      ref::Array kv({s.samples, s.keys, 2 * s.groups, s.head_size});
      for (std::int64_t i = 0; i < kv.shape.elements(); ++i) {
        const std::int64_t at = i / (2 * s.groups * s.head_size) % s.keys;
        kv[i] = at < position + s.queries ? std::sin(static_cast<double>(i * i))
                                          : std::numeric_limits<double>::quiet_NaN();
      }
      EXPECT_EQ("",
                check_kernels(
                    {.inputs = {{DType::kF32, {s.samples, s.queries, s.heads, s.head_size}},
                                {DType::kF32, kv.shape},
                                {DType::kI64, {}}},
                     .build = [](GraphBuilder& b,
                                 const Inputs& x) { ops::cached_attention(b, x[0], x[1], x[2]); },
                     .fixed = {{"x1", kv}, {"x2", ref::Array({}, {static_cast<double>(position)})}},
                     .backward = false,
                     .any_threads = true}))
          << s.queries << " queries at " << position << " of " << s.keys;
    }
  }
}

TEST(CpuKernel, AttentionOnEveryInstructionSet) {
  const std::int64_t all = hwy::SupportedTargets();
  for (std::int64_t targets = all; targets != 0; targets &= targets - 1) {
    const std::int64_t target = targets & -targets;
    hwy::SetSupportedTargetsForTest(target);
    EXPECT_EQ("", check_kernels(packed({1, 2, 1, 75, 75, 11}, {.causal = true})))
        << hwy::TargetName(target);
  }
  hwy::SetSupportedTargetsForTest(0);
}

// Scores of some thousands: exponentials are of differences.
TEST(CpuKernel, AttentionOfLargeScores) {
  KernelCheck check = separate({1, 2, 2, 70, 100, 4}, {.scale = 1000});
  check.tolerance = 1e-4;  // of scores, 1e-4 is one unit in the last place
  check.backward = false;
  EXPECT_EQ("", check_kernels(check));
}

TEST(CpuKernel, NaNInAQueryStaysInItsRow) {
  for (const std::int64_t place : {0, 5, 69}) {
    ref::Array q({1, 70, 1, 3});
    q[place * 3 + 1] = std::numeric_limits<double>::quiet_NaN();
    KernelCheck check = separate({1, 1, 1, 70, 80, 3}, {});
    check.fixed = {{"x0", q}};
    check.backward = false;
    EXPECT_EQ("", check_kernels(check));
  }
}

}  // namespace
}  // namespace concord::cpu

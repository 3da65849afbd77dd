#include "concord/kernels/kernel_check.h"

#include <gtest/gtest.h>

#include "concord/kernels/cpu/instruction_set.h"
#include "concord/ops/matmul.h"

namespace concord {
namespace {

// Skipped where every check of a kernel leaves bf16 out, so that this is seen.
TEST(KernelCheck, ChecksBf16) {
  if (!cpu::has_bf16()) GTEST_SKIP() << "the processor has no bf16: kernels are checked in f32";
  KernelCheck product{
      .inputs = {{DType::kF32, {8, 64}}, {DType::kF32, {64, 8}}},
      .build = [](GraphBuilder& b, const std::vector<ValueId>& x) { ops::matmul(b, x[0], x[1]); },
      .tolerance = 5e-5};
  EXPECT_EQ("", check_kernels(product));
  product.bf16_tolerance = 1e-12;  // sums in f32 are not that good
  EXPECT_NE("", check_kernels(product));
}

}  // namespace
}  // namespace concord

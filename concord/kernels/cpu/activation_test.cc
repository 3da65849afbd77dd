#include "concord/ops/activation.h"

#include <gtest/gtest.h>

#include "concord/kernels/kernel_check.h"

namespace concord::cpu {
namespace {

TEST(CpuKernel, Relu) {
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {3, 50}}},
                               .build = [](GraphBuilder& b,
                                           const std::vector<ValueId>& x) { ops::relu(b, x[0]); },
                               .backward = false}));
}

}  // namespace
}  // namespace concord::cpu

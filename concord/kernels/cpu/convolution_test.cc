#include "concord/ops/convolution.h"

#include <gtest/gtest.h>

#include "concord/kernels/kernel_check.h"

namespace concord::cpu {
namespace {

struct Case {
  Shape x, w;
  ops::Conv2dOptions options = {};
};

std::string check(const Case& c, bool bias, const KernelPolicy& policy, double tolerance) {
  KernelCheck check{.inputs = {{DType::kF32, c.x}, {DType::kF32, c.w}},
                    .build =
                        [&](GraphBuilder& b, const std::vector<ValueId>& x) {
                          ops::conv2d(b, x[0], x[1], c.options, bias ? x[2] : kNoValue);
                        },
                    .tolerance = tolerance,
                    .policy = policy};
  if (bias) check.inputs.push_back({DType::kF32, {c.w[0]}});
  return check_kernels(check);
}

TEST(CpuKernel, ConvolutionDirect) {
  const Case cases[] = {
      {{2, 1, 12, 12}, {6, 1, 5, 5}},
      {{2, 3, 15, 13}, {16, 3, 7, 7}, {.stride = {2, 2}, .padding = {3, 3}}},
      {{1, 3, 9, 9}, {20, 3, 3, 3}, {.padding = {1, 1}}},
      {{2, 16, 7, 7}, {16, 16, 3, 3}, {.padding = {1, 1}}},
      {{1, 16, 9, 7}, {64, 16, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}},
      {{2, 6, 8, 8}, {16, 6, 5, 5}},
      {{1, 20, 5, 6}, {6, 20, 1, 1}},
      {{2, 64, 4, 4}, {20, 64, 1, 1}, {.stride = {2, 2}}},
      {{1, 16, 9, 9}, {20, 16, 3, 3}, {.padding = {2, 2}, .dilation = {2, 2}}},
      {{1, 3, 8, 9}, {1, 3, 2, 3}, {.stride = {1, 2}, .padding = {0, 1}, .dilation = {2, 1}}},
      {{1, 64, 1, 1}, {16, 64, 1, 1}},
      {{1, 1, 3, 3}, {1, 1, 3, 3}},
  };
  for (const Case& c : cases) {
    for (const bool bias : {false, true}) {
      EXPECT_EQ("", check(c, bias, {.winograd = false}, 2e-5));
    }
  }
}

// With blocks that one stride can step through (32 channels in each group), without (6), depthwise,
// and depthwise with several outputs for each channel.
TEST(CpuKernel, ConvolutionInGroups) {
  const Case cases[] = {
      {{2, 64, 5, 5}, {64, 32, 3, 3}, {.padding = {1, 1}, .groups = 2}},
      {{1, 6, 7, 7}, {12, 3, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}, .groups = 2}},
      {{1, 20, 6, 6}, {20, 1, 3, 3}, {.padding = {1, 1}, .groups = 20}},
      {{1, 16, 6, 6}, {16, 1, 5, 5}, {.stride = {2, 2}, .padding = {2, 2}, .groups = 16}},
      {{1, 16, 5, 5}, {32, 1, 3, 3}, {.groups = 16}},
  };
  for (const Case& c : cases) {
    EXPECT_EQ("", check(c, /*bias=*/true, {.winograd = false}, 2e-5));
  }
}

}  // namespace
}  // namespace concord::cpu

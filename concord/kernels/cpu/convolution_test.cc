#include "concord/ops/convolution.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "concord/autodiff/backpropagate.h"
#include "concord/base/error.h"
#include "concord/graph/op.h"
#include "concord/kernels/cpu/check_layouts.h"
#include "concord/kernels/cpu/instruction_set.h"
#include "concord/kernels/cpu/onednn.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/ops/arithmetic.h"

namespace concord::cpu {
namespace {

struct Case {
  Shape x, w;
  ops::Conv2dOptions options = {};
};

std::string check(const Case& c, bool bias, const KernelPolicy& policy, double tolerance,
                  bool any_threads = false) {
  KernelCheck check{.inputs = {{DType::kF32, c.x}, {DType::kF32, c.w}},
                    .build =
                        [&](GraphBuilder& b, const std::vector<ValueId>& x) {
                          ops::conv2d(b, x[0], x[1], c.options, bias ? x[2] : kNoValue);
                        },
                    .tolerance = tolerance,
                    .any_threads = any_threads,
                    .policy = policy};
  if (bias) check.inputs.push_back({DType::kF32, {c.w[0]}});
  return check_free_and_row_major(check);
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

// Batches of whole vectors of samples: channels that do and do not fill the blocks of registers,
// windows that stick out, and one wider than its padded rows are long.
TEST(CpuKernel, ConvolutionOfFewChannels) {
  const Case cases[] = {
      {{16, 1, 9, 8}, {6, 1, 5, 5}, {.padding = {2, 2}}},
      {{32, 6, 8, 7}, {16, 6, 5, 5}},
      {{16, 5, 3, 4}, {7, 5, 3, 2}, {.padding = {1, 1}}},
      {{16, 2, 4, 2}, {3, 2, 3, 7}, {.padding = {2, 4}}},
      {{48, 13, 1, 1}, {9, 13, 1, 1}},
      {{16, 2, 2, 2}, {1, 2, 1, 1}, {.padding = {2, 1}}},
  };
  for (const Case& c : cases) {
    for (const bool bias : {false, true}) EXPECT_EQ("", check(c, bias, {}, 2e-5));
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

// The choices that are open for a layer and its gradients, computed in f32 or in bf16, as the rules
// write them down.
KernelChoices open_choices(const Case& c, KernelPolicy policy, DType dtype, bool has_bias = true) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, c.x});
  const ValueId w = b.input("w", {DType::kF32, c.w});
  const ValueId bias = has_bias ? b.input("bias", {DType::kF32, {c.w[0]}}) : kNoValue;
  const ValueId y = ops::conv2d(b, x, w, c.options, bias);
  const ValueId loss = ops::sum_to_shape(b, y, Shape{});
  std::vector<ValueId> sources = {x, w};
  if (has_bias) sources.push_back(bias);
  backpropagate(b, loss, sources);
  for (const Node& node : graph.nodes) {
    if (!node.op.starts_with("conv2d")) continue;
    const Op& op = find_op(node.op);
    std::vector<TensorType> types;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      types.push_back(graph.type(node.inputs[i]));
      if (op.bf16.takes(i)) types.back().dtype = dtype;
    }
    Signature signature{node, {}, {}};
    for (const TensorType& type : types) signature.inputs.push_back({type, {}});
    for (const TensorType& type : op.infer(node, types)) signature.outputs.push_back({type, {}});
    const std::vector<std::optional<Layout>> free(node.inputs.size());
    find_kernel_rule(node.op).layouts(signature, free, policy);
  }
  return policy.choices;
}

// Every choice the other way.
KernelChoices opposite(KernelChoices choices) {
  for (auto& [key, choice] : choices) {
    const char* other = key.find("bf16") == std::string::npos ? "winograd" : "in f32";
    choice = choice == "direct" ? other : "direct";
  }
  return choices;
}

const Case kWinogradCases[] = {
    {{2, 16, 8, 8}, {16, 16, 3, 3}, {.padding = {1, 1}}},
    {{1, 64, 14, 14}, {64, 64, 3, 3}, {.padding = {1, 1}}},
    {{4, 32, 13, 9}, {48, 32, 3, 3}},
};

// Winograd's transforms, F(4x4, 3x3), cost accuracy: over these cases and the three products the
// largest error is 1.0e-4, that of the direct algorithm 2.5e-5 (oneDNN 2.6.3, AVX-512).
TEST(CpuKernel, ConvolutionWinograd) {
  for (const Case& c : kWinogradCases) {
    KernelPolicy policy{.measure = false};
    policy.choices = open_choices(c, policy, DType::kF32);
    for (const auto& [key, choice] : policy.choices) {
      EXPECT_EQ(choice, "direct") << "nothing was measured";
    }
    policy.choices = opposite(policy.choices);
    EXPECT_EQ("", check(c, /*bias=*/true, policy, 2e-4));
  }
}

// Whether oneDNN keeps images of bf16 in blocks as those of f32, which Concord's own kernels want.
// For AMX it does not.
bool has_bf16_in_blocks(const Case& c) {
  return has_bf16() &&
         onednn::image_layout({DType::kBF16, c.x}) == onednn::image_layout({DType::kF32, c.x});
}

// Concord's own kernels, in f32 and in bf16; their bits do not depend on the number of threads.
std::string check_own_winograd(const Case& c, bool bias) {
  KernelPolicy policy{.measure = false};
  policy.choices = open_choices(c, policy, DType::kF32, bias);
  if (has_bf16_in_blocks(c)) policy.choices.merge(open_choices(c, policy, DType::kBF16, bias));
  for (auto& [key, choice] : policy.choices) choice = "own winograd";
  // oneDNN's layouts on other processors leave no choice: then this checks the direct algorithm.
  const bool all_own = !policy.choices.empty() && (!has_bf16() || has_bf16_in_blocks(c));
  return check(c, bias, policy, 3e-4, /*any_threads=*/all_own);
}

// Tiles that stick out of the images on one side or on both, blocks of rows of tiles that end
// within samples, few tiles and many, more rows and columns of weights than a block has.
TEST(CpuKernel, ConvolutionOwnWinograd) {
  const Case cases[] = {
      {{2, 16, 8, 8}, {16, 16, 3, 3}, {.padding = {1, 1}}},
      {{3, 32, 13, 9}, {48, 32, 3, 3}},
      {{5, 144, 4, 4}, {80, 144, 3, 3}, {.padding = {1, 1}}},
      {{1, 48, 6, 31}, {16, 48, 3, 3}, {.padding = {2, 0}}},
      {{2, 32, 1, 2}, {32, 32, 3, 3}, {.padding = {1, 4}}},
      {{2, 16, 3, 520}, {16, 16, 3, 3}, {.padding = {0, 1}}},
      {{9, 16, 17, 14}, {144, 16, 3, 3}, {.padding = {1, 1}}},
  };
  for (const Case& c : cases) {
    for (const bool bias : {false, true}) EXPECT_EQ("", check_own_winograd(c, bias));
  }
}

TEST(CpuKernel, ConvolutionOwnWinogradOnEveryInstructionSet) {
  for (std::int64_t targets = hwy::SupportedTargets(); targets != 0; targets &= targets - 1) {
    const std::int64_t target = targets & -targets;
    hwy::SetSupportedTargetsForTest(target);
    EXPECT_EQ("", check_own_winograd({{2, 32, 7, 9}, {16, 32, 3, 3}, {.padding = {1, 0}}}, true))
        << hwy::TargetName(target);
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(CpuKernel, ConvolutionOfBf16InF32) {
  if (!has_bf16()) GTEST_SKIP() << "the processor has no bf16";
  for (const Case& c : kWinogradCases) {
    KernelPolicy policy{.measure = false};
    policy.choices = opposite(open_choices(c, policy, DType::kBF16));
    EXPECT_EQ(policy.choices.size(), 3U);
    EXPECT_EQ("", check(c, /*bias=*/true, policy, 5e-5));
  }
}

TEST(CpuKernel, ConvolutionChoicesAreMadeOnceAndObeyed) {
  const Case& c = kWinogradCases[0];
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    if (dtype == DType::kBF16 && !has_bf16()) continue;
    EXPECT_TRUE(open_choices(c, {.winograd = false}, dtype).empty());
    KernelPolicy policy;
    policy.choices = opposite(open_choices(c, policy, dtype));
    EXPECT_EQ(open_choices(c, policy, dtype), policy.choices)
        << "a choice that was made is not made anew";
    if (policy.choices.empty()) continue;  // an instruction set for which oneDNN has no Winograd
    policy.choices.begin()->second = "fastest";
    EXPECT_THROW(open_choices(c, policy, dtype), Error);
  }
}

}  // namespace
}  // namespace concord::cpu

#include "concord/ops/normalization.h"

#include <gtest/gtest.h>

#include "concord/kernels/cpu/check_layouts.h"

namespace concord::cpu {
namespace {

const Shape kShapes[] = {{2, 16, 5, 5}, {3, 20, 4, 3}, {2, 3, 6, 6}, {4, 64, 2, 2},
                         {2, 1, 3, 3},  {8, 10},       {16, 64},     {5, 1}};

// Alone, with ReLU, with an addend too. Groups of one part; with long sums, of several.
TEST(CpuKernel, BatchNorm) {
  std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
  shapes.push_back({3, 17, 30, 41});
  for (const int form : {0, 1, 2}) {
    for (const Shape& shape : shapes) {
      const TensorType image{DType::kF32, shape}, channels{DType::kF32, {shape[1]}};
      EXPECT_EQ("",
                check_free_and_row_major({.inputs = {image, channels, channels, image},
                                          .build =
                                              [&](GraphBuilder& b, const std::vector<ValueId>& x) {
                                                ops::batch_norm(b, x[0], x[1], x[2], 1e-5, form > 0,
                                                                form == 2 ? x[3] : kNoValue);
                                              },
                                          .tolerance = shape[1] == 17 ? 1e-4 : 2e-5,
                                          .any_threads = true}));
    }
  }
}

TEST(CpuKernel, BatchNormOverLeavesMatchesReference) {
  std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
  shapes.push_back({3, 17, 30, 41});
  for (const Shape& shape : shapes) {
    const TensorType image{DType::kF32, shape}, channels{DType::kF32, {shape[1]}};
    const double share = static_cast<double>(shape[1]) / static_cast<double>(shape.elements());
    EXPECT_EQ("", check_free_and_row_major(
                      {.inputs = {image, channels, channels, {DType::kF32, {}}},
                       .build =
                           [](GraphBuilder& b, const std::vector<ValueId>& x) {
                             ops::batch_norm_over_leaves(b, x[0], x[1], x[2], x[3], 1e-5);
                           },
                       .fixed = {{"x3", {{}, {share}}}},
                       .tolerance = shape[1] == 17 ? 1e-4 : 2e-5,
                       .any_threads = true}));
  }
}

// The squares of such numbers hold nothing of their variance in f32.
TEST(CpuKernel, BatchNormOfChannelsFarFromZero) {
  const Shape shape{2, 16, 40, 40};
  const TensorType channels{DType::kF32, {16}};
  ref::Array x(shape);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    x[i] = 1000 + 0.125 * static_cast<double>(i * 7 % 16);
  }
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, shape}, channels, channels},
                               .build =
                                   [](GraphBuilder& b, const std::vector<ValueId>& x) {
                                     ops::batch_norm(b, x[0], x[1], x[2], 1e-5);
                                   },
                               .fixed = {{"x0", x}},
                               .tolerance = 1e-3,
                               .backward = false}));
}

TEST(CpuKernel, BatchNormOfChannelsLast) {
  const Shape shape{2, 20, 3, 4};
  const TensorType channels{DType::kF32, {20}};
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, shape}, channels, channels},
                               .build =
                                   [](GraphBuilder& b, const std::vector<ValueId>& x) {
                                     ops::batch_norm(b, x[0], x[1], x[2], 1e-5, true);
                                   },
                               .tolerance = 2e-5,
                               .offered = channels_last(shape)}));
}

TEST(CpuKernel, BatchNormInference) {
  for (const bool relu : {false, true}) {
    for (const Shape& shape : kShapes) {
      const TensorType channels{DType::kF32, {shape[1]}};
      ref::Array variance(channels.shape);
      for (std::int64_t c = 0; c < shape[1]; ++c) variance[c] = 0.5 + 0.1 * static_cast<double>(c);
      EXPECT_EQ("", check_free_and_row_major(
                        {.inputs = {{DType::kF32, shape}, channels, channels, channels, channels},
                         .build =
                             [&](GraphBuilder& b, const std::vector<ValueId>& x) {
                               ops::batch_norm_inference(b, x[0], x[1], x[2], x[3], x[4], 1e-5,
                                                         relu);
                             },
                         .fixed = {{"x4", variance}},
                         .backward = false}));
    }
  }
}

// Rows that fill vectors and rows that do not, several blocks of rows, a row of one element.
const Shape kRows[] = {{3, 16}, {2, 5, 37}, {300, 64}, {7, 2, 131}, {130, 3}, {100}, {5, 1}};

TEST(CpuKernel, LayerNorm) {
  for (const Shape& shape : kRows) {
    const TensorType channels{DType::kF32, {shape[-1]}};
    EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, shape}, channels, channels},
                                 .build =
                                     [](GraphBuilder& b, const std::vector<ValueId>& x) {
                                       ops::layer_norm(b, x[0], x[1], x[2], 1e-5);
                                     },
                                 .tolerance = 2e-5,
                                 .any_threads = true}));
  }
}

TEST(CpuKernel, LayerNormOfRowsFarFromZero) {
  ref::Array x({4, 50});
  for (std::int64_t i = 0; i < 200; ++i) x[i] = 1000 + static_cast<double>(i * i % 17);
  const TensorType channels{DType::kF32, {50}};
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, x.shape}, channels, channels},
                               .build =
                                   [](GraphBuilder& b, const std::vector<ValueId>& in) {
                                     ops::layer_norm(b, in[0], in[1], in[2], 1e-5);
                                   },
                               .fixed = {{"x0", x}},
                               .tolerance = 1e-4}));
}

TEST(CpuKernel, RmsNorm) {
  for (const Shape& shape : kRows) {
    EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, shape}, {DType::kF32, {shape[-1]}}},
                                 .build =
                                     [](GraphBuilder& b, const std::vector<ValueId>& x) {
                                       ops::rms_norm(b, x[0], x[1], 1e-5);
                                     },
                                 .tolerance = 2e-5,
                                 .any_threads = true}));
  }
}

TEST(CpuKernel, GroupNorm) {
  struct Case {
    Shape shape;
    std::int64_t groups;
  };
  const std::vector<Case> cases = {
      {{2, 16, 5, 5}, 4}, {{3, 6, 4, 3}, 1}, {{5, 3, 7}, 3}, {{4, 64, 16, 8}, 8}, {{3, 12}, 2}};
  for (const Case& c : cases) {
    const TensorType channels{DType::kF32, {c.shape[1]}};
    EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, c.shape}, channels, channels},
                                 .build =
                                     [&](GraphBuilder& b, const std::vector<ValueId>& x) {
                                       ops::group_norm(b, x[0], c.groups, x[1], x[2], 1e-5);
                                     },
                                 .tolerance = 2e-5,
                                 .any_threads = true}));
  }
}

}  // namespace
}  // namespace concord::cpu

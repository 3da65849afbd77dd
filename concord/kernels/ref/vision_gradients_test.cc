// The gradient rules of convolution, pooling and batch norm against central differences
// (kernels/ref/gradient_check.h).
#include <gtest/gtest.h>

#include "concord/kernels/ref/gradient_check.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/convolution.h"
#include "concord/ops/normalization.h"
#include "concord/ops/pooling.h"
#include "concord/ops/reorder.h"
#include "concord/ops/step.h"

namespace concord::ref {
namespace {

using Inputs = std::vector<ValueId>;

TEST(Gradient, ConvolutionWithStridePaddingDilationAndGroups) {
  struct Case {
    Shape x, w;
    ops::Conv2dOptions options;
  };
  const std::vector<Case> cases = {
      {{2, 2, 4, 5}, {3, 2, 3, 3}, {}},
      {{1, 1, 5, 4}, {2, 1, 3, 2}, {.stride = {2, 1}, .padding = {1, 2}}},
      {{1, 2, 5, 6}, {1, 2, 2, 3}, {.padding = {1, 1}, .dilation = {2, 2}}},
      {{1, 4, 3, 3}, {6, 2, 2, 2}, {.stride = {2, 2}, .padding = {1, 1}, .groups = 2}},
  };
  for (const Case& c : cases) {
    EXPECT_EQ("", check_gradients({.shapes = {c.x, c.w, {c.w[0]}},
                                   .build = [&](GraphBuilder& b, const Inputs& x) {
                                     return ops::conv2d(b, x[0], x[1], c.options, x[2]);
                                   }}));
  }
  EXPECT_EQ("", check_gradients({.shapes = {{1, 2, 3, 3}, {2, 2, 2, 2}},
                                 .build = [](GraphBuilder& b, const Inputs& x) {
                                   return ops::conv2d(b, x[0], x[1]);
                                 }}));
}

TEST(Gradient, Pooling) {
  const ops::Pool2dOptions overlapping{.kernel = {3, 2}, .stride = {2, 1}, .padding = {1, 1}};
  EXPECT_EQ("", check_gradients(
                    {.shapes = {{1, 2, 5, 4}}, .build = [&](GraphBuilder& b, const Inputs& x) {
                       return ops::max_pool2d(b, x[0], overlapping);
                     }}));
  for (const bool include : {false, true}) {
    EXPECT_EQ("", check_gradients(
                      {.shapes = {{1, 2, 5, 4}}, .build = [&](GraphBuilder& b, const Inputs& x) {
                         return ops::avg_pool2d(b, x[0], overlapping, include);
                       }}));
  }
  EXPECT_EQ(
      "", check_gradients({.shapes = {{2, 2, 2, 3}}, .build = [](GraphBuilder& b, const Inputs& x) {
                             return ops::global_average_pool(b, x[0]);
                           }}));
}

TEST(Gradient, BatchNormOfImagesAndVectors) {
  for (const bool relu : {false, true}) {
    for (const Shape& shape : {Shape{3, 2, 2, 2}, Shape{4, 3}}) {
      const Shape channels{shape[1]};
      EXPECT_EQ("", check_gradients({.shapes = {shape, channels, channels},
                                     .build = [&](GraphBuilder& b, const Inputs& x) {
                                       return ops::batch_norm(b, x[0], x[1], x[2], 1e-3, relu).y;
                                     }}));
      if (!relu) continue;
      EXPECT_EQ("",
                check_gradients({.shapes = {shape, channels, channels, shape},
                                 .build = [&](GraphBuilder& b, const Inputs& x) {
                                   return ops::batch_norm(b, x[0], x[1], x[2], 1e-3, relu, x[3]).y;
                                 }}));
    }
  }
}

// Of a single leaf it is batch norm.
TEST(Gradient, BatchNormOverLeaves) {
  for (const Shape& shape : {Shape{3, 2, 2, 2}, Shape{4, 3}}) {
    const Shape channels{shape[1]};
    const auto share = [&](GraphBuilder& b) {
      return ops::constant(b, {DType::kF32, {}},
                           static_cast<double>(shape[1]) / static_cast<double>(shape.elements()));
    };
    const auto difference = [&](GraphBuilder& b, const Inputs& x) {
      return ops::sub(b, ops::batch_norm_over_leaves(b, x[0], x[1], x[2], share(b), 1e-3).y,
                      ops::batch_norm(b, x[0], x[1], x[2], 1e-3).y);
    };
    EXPECT_EQ("", check_gradients(
                      {.shapes = {shape, channels, channels},
                       .build = [&](GraphBuilder& b, const Inputs& x) {
                         return ops::batch_norm_over_leaves(b, x[0], x[1], x[2], share(b), 1e-3).y;
                       }}));
    EXPECT_EQ("", check_gradients({.shapes = {shape, channels, channels}, .build = difference}));
  }
}

TEST(Gradient, LayerNormAndRmsNorm) {
  for (const Shape& shape : {Shape{3, 4}, Shape{2, 2, 3}}) {
    const Shape channels{shape[-1]};
    EXPECT_EQ("", check_gradients({.shapes = {shape, channels, channels},
                                   .build = [](GraphBuilder& b, const Inputs& x) {
                                     return ops::layer_norm(b, x[0], x[1], x[2], 1e-3);
                                   }}));
    EXPECT_EQ("", check_gradients(
                      {.shapes = {shape, channels}, .build = [](GraphBuilder& b, const Inputs& x) {
                         return ops::rms_norm(b, x[0], x[1], 1e-3);
                       }}));
  }
}

TEST(Gradient, GroupNorm) {
  for (const std::int64_t groups : {1, 2, 4}) {
    for (const Shape& shape : {Shape{2, 4, 2, 2}, Shape{2, 4, 3}}) {
      EXPECT_EQ("", check_gradients({.shapes = {shape, {4}, {4}},
                                     .build = [&](GraphBuilder& b, const Inputs& x) {
                                       return ops::group_norm(b, x[0], groups, x[1], x[2], 1e-3);
                                     }}));
    }
  }
}

TEST(Gradient, Reorder) {
  EXPECT_EQ("", check_gradients({.shapes = {{2, 3}}, .build = [](GraphBuilder& b, const Inputs& x) {
                                   return ops::reorder(b, x[0]);
                                 }}));
}

}  // namespace
}  // namespace concord::ref

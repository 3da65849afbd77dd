// Shape rules of convolution, pooling and batch norm, and what they say to a user whose layers do
// not fit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "concord/base/error.h"
#include "concord/graph/op.h"
#include "concord/ops/convolution.h"
#include "concord/ops/normalization.h"
#include "concord/ops/pooling.h"

namespace concord::ops {
namespace {

class VisionShapes : public testing::Test {
 protected:
  ValueId value(Shape shape) {
    return builder_.input(fmt::format("x{}", graph_.inputs.size()),
                          {DType::kF32, std::move(shape)});
  }
  // The message of the Error that adding the layer "conv1" throws.
  template <typename Add>
  std::string message(Add add) {
    const auto scope = builder_.scope("conv1");
    try {
      add();
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was thrown";
  }

  Graph graph_;
  GraphBuilder builder_{graph_};
};

TEST_F(VisionShapes, ConvolutionRoundsDown) {
  const ValueId y = conv2d(builder_, value({2, 6, 9, 8}), value({4, 3, 3, 2}),
                           {.stride = {2, 3}, .padding = {1, 0}, .dilation = {2, 1}, .groups = 2});
  EXPECT_EQ(builder_.shape(y), (Shape{2, 4, 4, 3}));
  // Two operations for each of the 3 x 3 x 2 weights that reach each output.
  EXPECT_EQ(cost_of(graph_, graph_.nodes.back()).flops, 2.0 * 2 * 4 * 4 * 3 * 18);
}

TEST_F(VisionShapes, ConvolutionNamesTheLayerAndBothChannelCounts) {
  const ValueId x = value({2, 3, 8, 8});
  EXPECT_EQ(message([&] {
              conv2d(builder_, x, value({16, 4, 3, 3}));
            }),
            "layer conv1 (conv2d): the weights [16, 4, 3, 3] expect 4 input channels; the input "
            "[2, 3, 8, 8] has 3");
  EXPECT_THAT(message([&] {
                conv2d(builder_, x, value({16, 1, 3, 3}), {.groups = 2});
              }),
              testing::HasSubstr("2 groups must divide the 3 input channels"));
  EXPECT_THAT(message([&] {
                conv2d(builder_, x, value({16, 3, 9, 9}));
              }),
              testing::HasSubstr("a window 9 high does not fit into 8 with padding 0"));
  EXPECT_THAT(message([&] {
                conv2d(builder_, x, value({16, 3, 3, 3}), {.stride = {0, 1}});
              }),
              testing::HasSubstr("the stride is [0, 1]; expected at least 1"));
  EXPECT_THAT(message([&] {
                conv2d(builder_, x, value({16, 3, 3, 3}), {.dilation = {INT64_MAX / 2, 1}});
              }),
              testing::HasSubstr("the dilation is"));
  EXPECT_THAT(message([&] {
                conv2d(builder_, value({2, 3}), value({16, 3, 3, 3}));
              }),
              testing::HasSubstr("the input is [2, 3]; expected [N, C, H, W]"));
}

TEST_F(VisionShapes, PoolingKeepsEveryWindowOnTheImage) {
  const ValueId x = value({2, 3, 7, 7});
  EXPECT_EQ(builder_.shape(
                max_pool2d(builder_, x, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}})),
            (Shape{2, 3, 4, 4}));
  EXPECT_EQ(builder_.shape(global_average_pool(builder_, x)), (Shape{2, 3, 1, 1}));
  EXPECT_THAT(message([&] {
                avg_pool2d(builder_, x, {.kernel = {2, 2}, .padding = {2, 2}});
              }),
              testing::HasSubstr("padding [2, 2] must be smaller than the kernel [2, 2]"));
}

TEST_F(VisionShapes, IndexOfALargeWindowDoesNotFitIntoAByte) {
  const ValueId x = value({1, 1, 20, 20});
  max_pool2d(builder_, x, {.kernel = {15, 17}});
  EXPECT_EQ(graph_.type(graph_.nodes.back().outputs[1]).dtype, DType::kU8);
  max_pool2d(builder_, x, {.kernel = {16, 16}});
  EXPECT_EQ(graph_.type(graph_.nodes.back().outputs[1]).dtype, DType::kI32);
}

TEST_F(VisionShapes, BatchNormWantsOneParameterForEachChannel) {
  EXPECT_THAT(message([&] {
                batch_norm(builder_, value({2, 3, 4, 4}), value({4}), value({3}), 1e-5);
              }),
              testing::HasSubstr("of 3 channels is f32[4]; expected [3]"));
  EXPECT_THAT(message([&] {
                batch_norm(builder_, value({2, 3, 4}), value({3}), value({3}), 1e-5);
              }),
              testing::HasSubstr("expected [N, C, H, W] or [N, C]"));
}

TEST_F(VisionShapes, NormsOfSamplesWantParametersAndEqualGroups) {
  EXPECT_THAT(message([&] {
                layer_norm(builder_, value({2, 3}), value({3}), value({2}), 1e-5);
              }),
              testing::HasSubstr("a parameter is f32[2]; 3 channels need f32[3]"));
  EXPECT_THAT(message([&] {
                rms_norm(builder_, value({2, 0}), value({0}), 1e-5);
              }),
              testing::HasSubstr("[2, 0]; expected [..., C] with at least one channel"));
  EXPECT_THAT(message([&] {
                group_norm(builder_, value({2, 6, 4}), 4, value({6}), value({6}), 1e-5);
              }),
              testing::HasSubstr("4 groups of [2, 6, 4]; expected [N, C, ...]"));
}

}  // namespace
}  // namespace concord::ops

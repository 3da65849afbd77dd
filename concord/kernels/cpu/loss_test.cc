#include "concord/ops/loss.h"

#include <gtest/gtest.h>

#include <limits>

#include "concord/kernels/kernel_check.h"
#include "concord/ops/step.h"

namespace concord::cpu {
namespace {

using Inputs = std::vector<ValueId>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

TEST(CpuKernel, BinaryCrossEntropyWithLogits) {
  for (const Shape& shape : {Shape{1}, Shape{3, 50}, Shape{20, 1001}}) {
    EXPECT_EQ("",
              check_kernels({.inputs = {{DType::kF32, shape}, {DType::kF32, shape}},
                             .build =
                                 [](GraphBuilder& b, const Inputs& x) {
                                   const ValueId weight = ops::constant(b, {DType::kF32, {}}, 0.5);
                                   ops::binary_cross_entropy_with_logits(b, x[0], x[1], weight);
                                 },
                             .any_threads = true}));
  }
}

TEST(CpuKernel, BinaryCrossEntropyOfLargeLogitsAndNaN) {
  const ref::Array logits({7}, {-1e30, -200, -20, 20, 200, 1e30, kNaN});
  const ref::Array targets({7}, {0, 0, 0, 1, 1, 1, 1});
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {7}}, {DType::kF32, {7}}},
                               .build =
                                   [](GraphBuilder& b, const Inputs& x) {
                                     b.node1("binary_cross_entropy_with_logits", {x[0], x[1]});
                                   },
                               .fixed = {{"x0", logits}, {"x1", targets}},
                               .tolerance = 1e-9,
                               .backward = false}));
}

TEST(CpuKernel, HuberLossIsExactFarFromTheTarget) {
  Graph graph;
  GraphBuilder b(graph);
  const TensorType type{DType::kF32, {1}};
  const ValueId one = ops::constant(b, {DType::kF32, {}}, 1);
  ops::huber_loss(b, b.input("x", type), b.input("t", type), one, 0.5);
  for (const auto& [x, loss] : {std::pair{1e8, 0.5 * (1e8 - 0.25)}, {0.25, 0.03125}, {-2, 0.875}}) {
    const auto values =
        ref::evaluate(graph, {{"x", ref::Array({1}, {x})}, {"t", ref::Array({1}, {0.0})}});
    EXPECT_DOUBLE_EQ(values.back().data[0], loss);
  }
}

}  // namespace
}  // namespace concord::cpu

#include "concord/ops/linear_cross_entropy.h"

#include <gtest/gtest.h>

#include <limits>

#include "concord/base/parallel.h"
#include "concord/kernels/kernel_check.h"
#include "concord/ops/step.h"

namespace concord::cpu {
namespace {

using Inputs = std::vector<ValueId>;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
// In bf16 the gradients of the logits are rounded to it before they are multiplied.
constexpr double kBf16Tolerance = 4e-3;

struct Case {
  std::int64_t rows, features, classes;
  double smoothing = 0;
  bool bias = false;
  std::optional<std::int32_t> ignored = std::nullopt;
};

std::string check(const Case& c, std::vector<double> labels) {
  std::vector<TensorType> inputs = {{DType::kF32, {c.rows, c.features}},
                                    {DType::kF32, {c.classes, c.features}},
                                    {DType::kI32, {c.rows}}};
  if (c.bias) inputs.push_back({DType::kF32, {c.classes}});
  return check_kernels({.inputs = std::move(inputs),
                        .build =
                            [&](GraphBuilder& b, const Inputs& x) {
                              const ValueId weight = ops::constant(b, {DType::kF32, {}}, 0.125);
                              ops::linear_cross_entropy(b, {x[0], x[1], c.bias ? x[3] : kNoValue},
                                                        x[2], weight, c.smoothing, c.ignored);
                            },
                        .fixed = {{"x2", ref::Array({c.rows}, std::move(labels))}},
                        .tolerance = 2e-5,
                        .bf16_tolerance = kBf16Tolerance});
}

// Labels all over the classes, the first and the last among them.
std::vector<double> labels_of(const Case& c) {
  std::vector<double> labels;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    labels.push_back(static_cast<double>((c.classes - 1 + i * 97) % c.classes));
  }
  return labels;
}

// Of one block of rows and one panel of classes, and of several that are not all full.
TEST(CpuKernel, LinearCrossEntropy) {
  for (const int threads : {1, 2}) {
    set_compute_threads(threads);
    for (const double smoothing : {0.0, 0.1}) {
      for (const bool bias : {false, true}) {
        for (const Case& c : {Case{1, 1, 1}, Case{3, 4, 2}, Case{7, 5, 100}, Case{530, 3, 37},
                              Case{9, 16, 1030}, Case{1030, 6, 700}}) {
          EXPECT_EQ("", check({c.rows, c.features, c.classes, smoothing, bias}, labels_of(c)))
              << c.rows << " x " << c.features << " x " << c.classes;
        }
      }
    }
  }
  set_compute_threads(0);
}

TEST(CpuKernel, LinearCrossEntropyLeavesIgnoredRowsOut) {
  for (const std::int32_t ignored : {-100, 2}) {
    const Case c{1100, 4, 20, 0.1, true, ignored};
    std::vector<double> labels = labels_of(c);
    for (std::size_t i = 0; i < labels.size(); i += 3) labels[i] = ignored;
    EXPECT_EQ("", check(c, labels));
    EXPECT_EQ("", check(c, std::vector<double>(1100, ignored)));
  }
}

TEST(CpuKernel, LinearCrossEntropyOfALabelOutsideTheClassesIsNaN) {
  for (const double label : {-1.0, 10.0}) {
    EXPECT_EQ("", check({3, 4, 10, 0, true}, {9, label, 4}));
  }
}

// Of a label whose probability p is nearly 1, p - 1 is less than what bf16 rounds p by.
TEST(CpuKernel, LinearCrossEntropyOfASureRowKeepsItsGradient) {
  EXPECT_EQ("", check_kernels(
                    {.inputs = {{DType::kF32, {1, 1}}, {DType::kF32, {2, 1}}, {DType::kI32, {1}}},
                     .build =
                         [](GraphBuilder& b, const Inputs& x) {
                           const ValueId weight = ops::constant(b, {DType::kF32, {}}, 1024);
                           ops::linear_cross_entropy(b, {x[0], x[1]}, x[2], weight);
                         },
                     .fixed = {{"x0", ref::Array({1, 1}, {7})},
                               {"x1", ref::Array({2, 1}, {1, 0})},
                               {"x2", ref::Array({1}, {0})},
                               {"output_weights", ref::Array({}, {1})}},
                     .tolerance = 1e-3,
                     .bf16_tolerance = kBf16Tolerance}));
}

// x w^T with w the unit matrix is x: the first of equal logits wins, and NaN does not.
TEST(CpuKernel, LinearCrossEntropyCountsCorrectRows) {
  const ref::Array x({6, 3}, {1, 2, 0, 2, 2, 1, 2, 2, 1, kNaN, 1, 0, 0, 4, 1, 0, 0, 3});
  const ref::Array unit({3, 3}, {1, 0, 0, 0, 1, 0, 0, 0, 1});
  const ref::Array labels({6}, {1, 0, 1, 1, 2, 2});
  const auto build = [](GraphBuilder& b, const Inputs& in) {
    const ValueId one = ops::constant(b, {DType::kF32, {}}, 1);
    return ops::linear_cross_entropy(b, {in[0], in[1]}, in[2], one).correct;
  };
  const std::vector<TensorType> types = {
      {DType::kF32, {6, 3}}, {DType::kF32, {3, 3}}, {DType::kI32, {6}}};
  const ref::Bindings fixed = {{"x0", x}, {"x1", unit}, {"x2", labels}};
  EXPECT_EQ("", check_kernels({.inputs = types,
                               .build = [&](GraphBuilder& b, const Inputs& in) { build(b, in); },
                               .fixed = fixed,
                               .tolerance = 1e-6,
                               .backward = false}));
  Graph graph;
  GraphBuilder b(graph);
  const Inputs in = {b.input("x0", types[0]), b.input("x1", types[1]), b.input("x2", types[2])};
  const ValueId correct = build(b, in);
  EXPECT_EQ(ref::evaluate(graph, fixed)[static_cast<std::size_t>(correct)].data[0], 3);
}

}  // namespace
}  // namespace concord::cpu

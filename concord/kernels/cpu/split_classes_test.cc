#include "concord/ops/split_classes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "concord/kernels/kernel_check.h"
#include "concord/ops/softmax.h"

namespace concord::cpu {
namespace {

using Inputs = std::vector<ValueId>;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr TensorType kScalar{DType::kF32, {}};

// Every op of a rank that has the classes from `first` on.
std::string check_part(const Shape& logits, std::int64_t first, std::int64_t classes,
                       std::vector<double> labels, const ref::Bindings& fixed = {},
                       std::int64_t ignored = -100) {
  const Shape rows = {logits[0]};
  KernelCheck check{
      .inputs = {{DType::kF32, logits}, {DType::kI32, rows}, kScalar, kScalar},
      .build =
          [=](GraphBuilder& b, const Inputs& x) {
            const Attributes part = {
                {"first", first}, {"classes", classes}, {"ignore_label", ignored}};
            const ValueId largest = b.node1(ops::kLargestOfRow, {x[0]});
            const ValueId sums = b.node1(ops::kClassSums, {x[0], largest, x[1]}, part);
            b.node1(ops::kCrossEntropyOfSums, {sums, x[1], x[2]},
                    {{"label_smoothing", 0.1}, {"classes", classes}, {"ignore_label", ignored}});
            for (const std::int64_t only_finite : {0, 1}) {
              b.node1(ops::kCountCorrectOfSums, {sums, x[1]},
                      {{"only_finite", only_finite}, {"ignore_label", ignored}});
            }
            const ValueId p = b.node1(ops::kSoftmaxOfSums, {x[0], largest, sums, x[1]},
                                      {{"ignore_label", ignored}});
            Attributes gradient = part;
            gradient.set("label_smoothing", 0.1);
            b.node1("softmax_cross_entropy_backward", {x[3], p, x[1], x[2]}, gradient);
          },
      .fixed = fixed,
      .tolerance = 2e-5,
      .backward = false,
      .any_threads = true};
  check.fixed["x1"] = ref::Array(rows, std::move(labels));
  return check_kernels(check);
}

TEST(CpuKernel, PartsOfTheClasses) {
  for (const std::int64_t classes : {1, 7, 16, 100}) {
    for (const std::int64_t part : {0, 1, 2}) {
      std::vector<double> labels(90);
      for (std::size_t i = 0; i < labels.size(); ++i) {
        labels[i] = static_cast<double>(i * 5 % (3 * static_cast<std::size_t>(classes)));
      }
      labels[3] = -100;
      labels[4] = labels[5] = 1;
      EXPECT_EQ("", check_part({90, classes}, part * classes, 3 * classes, labels));
    }
  }
}

TEST(CpuKernel, PartsOfTheClassesWithNaNInfinityAndEqualLogits) {
  for (const std::int64_t first : {0, 4}) {
    const ref::Array logits({6, 4}, {1, 2,          2, 0,  //
                                     2, 2,          2, 2,  //
                                     0, kNaN,       1, 2,  //
                                     0, kInfinity,  1, 2,  //
                                     0, -kInfinity, 1, 2, 3, 0, 0, 0});
    for (const double label : {0.0, 1.0, 2.0, 4.0, 6.0}) {
      EXPECT_EQ("", check_part({6, 4}, first, 8, std::vector<double>(6, label), {{"x0", logits}}));
    }
  }
}

TEST(CpuKernel, LabelOutsideAllPartsMakesTheLossNaN) {
  EXPECT_EQ("", check_part({3, 4}, 4, 8, {5, 8, 0}));
  EXPECT_EQ("", check_part({3, 4}, 4, 8, {5, -1, 0}));
}

// Two ranks' parts, put together by hand: what softmax_cross_entropy and count_correct say.
class TwoParts {
 public:
  TwoParts(const ref::Array& logits, const ref::Array& labels) {
    const std::int64_t rows = logits.shape[0], classes = logits.shape[1] / 2;
    std::vector<ref::Array> parts(2, ref::Array({rows, classes}));
    for (std::int64_t i = 0; i < logits.shape.elements(); ++i) {
      const std::int64_t j = i % (2 * classes);
      parts[static_cast<std::size_t>(j / classes)][i / (2 * classes) * classes + j % classes] =
          logits[i];
    }
    ref::Array largest({rows}), sums({rows, ops::kClassSumCount});
    for (const bool is_first : {true, false}) {
      const ref::Array own = run(ops::kLargestOfRow, {&parts[is_first ? 0 : 1]}, {}, {rows});
      for (std::int64_t r = 0; r < rows; ++r) {
        const bool takes = is_first || std::isnan(own[r]) || own[r] > largest[r];
        if (takes) largest[r] = own[r];
      }
    }
    for (const std::int64_t part : {0, 1}) {
      const ref::Array own =
          run(ops::kClassSums, {&parts[static_cast<std::size_t>(part)], &largest, &labels},
              {{"first", part * classes}, {"classes", 2 * classes}}, sums.shape);
      for (std::int64_t i = 0; i < own.shape.elements(); ++i) sums[i] += own[i];
    }
    const ref::Array one({}, {1});
    loss = run(ops::kCrossEntropyOfSums, {&sums, &labels, &one},
               {{"label_smoothing", 0.25}, {"classes", 2 * classes}}, {})[0];
    correct =
        run(ops::kCountCorrectOfSums, {&sums, &labels}, {{"only_finite", std::int64_t{0}}}, {})[0];
  }
  double loss = 0, correct = 0;

 private:
  static ref::Array run(std::string_view op, const std::vector<const ref::Array*>& inputs,
                        const Attributes& attributes, const Shape& shape) {
    const Node node{.op = std::string(op), .attributes = attributes};
    std::vector<ref::Array> outputs = {ref::Array(shape)};
    ref::find_kernel(op)({node, inputs, outputs});
    return outputs[0];
  }
};

TEST(SplitClasses, TogetherThePartsAreTheCrossEntropy) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 300; ++trial) {
    ref::Array logits({1, 6}), labels(Shape{1});
    // Few different numbers, so that many are equal.
    for (double& x : logits.data) x = static_cast<double>(random() % 3);
    if (trial % 10 == 0) logits[static_cast<std::int64_t>(random() % 6)] = kNaN;
    if (trial % 10 == 1) logits[static_cast<std::int64_t>(random() % 6)] = kInfinity;
    labels[0] = static_cast<double>(random() % 8) - 1;
    Graph graph;
    GraphBuilder b(graph);
    const ValueId x = b.input("x", {DType::kF32, {1, 6}}), y = b.input("y", {DType::kI32, {1}});
    const ValueId one = b.input("one", kScalar);
    const ValueId loss = ops::softmax_cross_entropy(b, x, y, one, 0.25);
    const ValueId correct = ops::count_correct(b, x, y);
    const std::vector<ref::Array> expected =
        ref::evaluate(graph, {{"x", logits}, {"y", labels}, {"one", ref::Array({}, {1})}});
    const TwoParts found(logits, labels);
    const double expected_loss = expected[static_cast<std::size_t>(loss)][0];
    if (std::isfinite(expected_loss)) {
      EXPECT_NEAR(found.loss, expected_loss, 1e-12);
    } else {
      EXPECT_FALSE(std::isfinite(found.loss));
    }
    EXPECT_EQ(found.correct, expected[static_cast<std::size_t>(correct)][0]);
  }
}

}  // namespace
}  // namespace concord::cpu

#include "concord/ops/softmax.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "concord/autodiff/backpropagate.h"
#include "concord/kernels/kernel_check.h"
#include "concord/ops/step.h"

namespace concord::cpu {
namespace {

using Inputs = std::vector<ValueId>;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

TEST(CpuKernel, Softmax) {
  for (const Shape& shape :
       {Shape{1}, Shape{3, 10}, Shape{4, 16}, Shape{2, 3, 1001}, Shape{600, 33}}) {
    EXPECT_EQ(
        "", check_kernels({.inputs = {{DType::kF32, shape}},
                           .build = [](GraphBuilder& b, const Inputs& x) { ops::softmax(b, x[0]); },
                           .any_threads = true}));
  }
}

TEST(CpuKernel, SoftmaxOfLargeNumbers) {
  EXPECT_EQ("",
            check_kernels(
                {.inputs = {{DType::kF32, {2, 3}}},
                 .build = [](GraphBuilder& b, const Inputs& x) { ops::softmax(b, x[0]); },
                 .fixed = {{"x0", ref::Array({2, 3}, {1e4, 1e4, -1e4, -1e30, -1e30, -1e30})}}}));
}

TEST(CpuKernel, NaNSpreadsOverItsRowOnly) {
  for (const std::int64_t place : {0, 5, 20}) {
    ref::Array x({2, 21});
    x[place] = kNaN;
    EXPECT_EQ("", check_kernels(
                      {.inputs = {{DType::kF32, x.shape}},
                       .build = [](GraphBuilder& b, const Inputs& in) { ops::softmax(b, in[0]); },
                       .fixed = {{"x0", x}},
                       .backward = false}));
  }
}

std::string check_loss(const Shape& logits, std::vector<double> labels, double smoothing,
                       std::optional<std::int32_t> ignored = std::nullopt) {
  std::vector<std::int64_t> rows = logits.dims();
  rows.pop_back();
  const Shape shape(rows);
  return check_kernels({.inputs = {{DType::kF32, logits}, {DType::kI32, shape}},
                        .build =
                            [=](GraphBuilder& b, const Inputs& x) {
                              const ValueId weight = ops::constant(b, {DType::kF32, {}}, 0.125);
                              ops::count_correct(b, x[0], x[1], ignored);
                              ops::softmax_cross_entropy(b, x[0], x[1], weight, smoothing, ignored);
                            },
                        .fixed = {{"x1", ref::Array(shape, std::move(labels))}},
                        .any_threads = true});
}

TEST(CpuKernel, SoftmaxCrossEntropy) {
  for (const double smoothing : {0.0, 0.1}) {
    EXPECT_EQ("", check_loss({3, 10}, {9, 0, 4}, smoothing));
    EXPECT_EQ("", check_loss({2, 2, 37}, {36, 1, 17, 30}, smoothing));
    std::vector<double> labels(900);
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<double>(i * 7 % 21);
    EXPECT_EQ("", check_loss({900, 21}, labels, smoothing));
  }
}

TEST(CpuKernel, LabelOutsideTheClassesMakesTheLossNaN) {
  for (const double label : {-1.0, 10.0, 2147483647.0}) {
    EXPECT_EQ("", check_loss({3, 10}, {9, label, 4}, 0.0));
  }
}

TEST(CpuKernel, IgnoredLabelsInsideAndOutsideTheClasses) {
  for (const double smoothing : {0.0, 0.1}) {
    EXPECT_EQ("", check_loss({4, 10}, {-100, 0, 4, -100}, smoothing, -100));
    EXPECT_EQ("", check_loss({4, 10}, {3, 0, 4, 3}, smoothing, 3));
    EXPECT_EQ("", check_loss({3, 10}, {3, -1, 4}, smoothing, 3));
  }
}

// An ignored row may hold anything: of the three rows, loss, count and gradient know only the
// first.
TEST(CpuKernel, IgnoredRowsAddNothing) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId logits = b.input("logits", {DType::kF32, {3, 2}});
  const ValueId labels = b.input("labels", {DType::kI32, {3}});
  const ValueId one = ops::constant(b, {DType::kF32, {}}, 1);
  const ValueId count = ops::count_correct(b, logits, labels, 1);
  const ValueId loss = ops::softmax_cross_entropy(b, logits, labels, one, 0, 1);
  const ValueId gradient = backpropagate(b, loss, std::vector{logits})[0];
  const std::vector<ref::Array> values =
      ref::evaluate(graph, {{"logits", ref::Array({3, 2}, {2, 2, 0, 5, kNaN, 1})},
                            {"labels", ref::Array({3}, {0, 1, 1})}});
  const auto of = [&](ValueId id) { return values[static_cast<std::size_t>(id)].data; };
  EXPECT_EQ(of(count), std::vector<double>{1});
  EXPECT_NEAR(of(loss)[0], std::log(2), 1e-12);
  const std::vector<double> expected = {-0.5, 0.5, 0, 0, 0, 0};
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(of(gradient)[i], expected[i], 1e-12);
}

TEST(CpuKernel, CountCorrectTakesTheFirstMaximumAndNoNaN) {
  const ref::Array logits({6, 3}, {1, 2, 0, 2, 2, 1, 2, 2, 1, kNaN, 1, 0, 0, kNaN, 1, 0, 0, 3});
  const ref::Array labels({6}, {1, 0, 1, 0, 2, 3});
  Graph graph;
  GraphBuilder b(graph);
  ops::count_correct(b, b.input("x0", {DType::kF32, {6, 3}}), b.input("x1", {DType::kI32, {6}}));
  EXPECT_EQ(ref::evaluate(graph, {{"x0", logits}, {"x1", labels}})[2].data[0], 2);
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {6, 3}}, {DType::kI32, {6}}},
                               .build = [](GraphBuilder& g,
                                           const Inputs& x) { ops::count_correct(g, x[0], x[1]); },
                               .fixed = {{"x0", logits}, {"x1", labels}},
                               .tolerance = 0,
                               .backward = false}));
}

}  // namespace
}  // namespace concord::cpu

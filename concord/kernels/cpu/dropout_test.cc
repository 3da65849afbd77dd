#include "concord/ops/dropout.h"

#include <gtest/gtest.h>

#include <numeric>

#include "concord/kernels/kernel_check.h"

namespace concord {
namespace {

using Inputs = std::vector<ValueId>;

TEST(CpuKernel, Dropout) {
  for (const Shape& shape : {Shape{1}, Shape{3, 50}, Shape{40, 515}, Shape{5, 3, 3}}) {
    for (const double first : {0.0, 7.0, 3e9}) {
      EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, shape}, {DType::kI64, {2}}},
                                   .build =
                                       [](GraphBuilder& b, const Inputs& x) {
                                         ops::dropout(
                                             b, x[0], x[1],
                                             {.rate = 0.3, .seed = 1ull << 63, .stream = 3});
                                       },
                                   .fixed = {{"x1", ref::Array({2}, {12, first})}},
                                   .tolerance = 1e-5,
                                   .any_threads = true}));
    }
  }
}

// Parts of what a whole tensor has, in runs of any length.
TEST(CpuKernel, DropoutOfAPart) {
  for (const std::int64_t run : {1, 6, 50, 300}) {
    EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {4, 300}}, {DType::kI64, {2}}},
                                 .build =
                                     [&](GraphBuilder& b, const Inputs& x) {
                                       b.node1("dropout", {x[0], x[1]},
                                               {{"rate", 0.3},
                                                {"seed", std::int64_t{5}},
                                                {"stream", std::int64_t{3}},
                                                {"sample_elements", std::int64_t{900}},
                                                {"run", run},
                                                {"stride", 3 * run},
                                                {"offset", 2 * run}});
                                     },
                                 .fixed = {{"x1", ref::Array({2}, {12, 3e9})}},
                                 .tolerance = 1e-5,
                                 .any_threads = true}));
  }
}

std::vector<double> dropped_ones(std::int64_t samples, double step, double first, double rate,
                                 std::uint32_t stream = 0) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {samples, 100}});
  const ValueId position = b.input("position", {DType::kI64, {2}});
  const ValueId y = ops::dropout(b, x, position, {.rate = rate, .seed = 9, .stream = stream});
  ref::Array ones({samples, 100});
  std::fill(ones.data.begin(), ones.data.end(), 1);
  const ref::Bindings bindings = {{"x", ones}, {"position", ref::Array({2}, {step, first})}};
  return ref::evaluate(graph, bindings)[static_cast<std::size_t>(y)].data;
}

TEST(Dropout, KeepsTheMeanAndDropsAboutItsRate) {
  const std::vector<double> y = dropped_ones(100, 0, 0, 0.25);
  const auto dropped = std::count(y.begin(), y.end(), 0.0);
  EXPECT_NEAR(static_cast<double>(dropped) / 10000, 0.25, 0.02);
  EXPECT_NEAR(std::accumulate(y.begin(), y.end(), 0.0) / 10000, 1.0, 0.03);
}

TEST(Dropout, DoesNotDependOnHowTheBatchIsCut) {
  const std::vector<double> whole = dropped_ones(8, 5, 16, 0.5);
  const std::vector<double> second_half = dropped_ones(4, 5, 20, 0.5);
  EXPECT_TRUE(std::equal(second_half.begin(), second_half.end(), whole.begin() + 400));
}

TEST(Dropout, DiffersByStepAndStream) {
  EXPECT_NE(dropped_ones(1, 5, 0, 0.5), dropped_ones(1, 6, 0, 0.5));
  EXPECT_NE(dropped_ones(1, 5, 0, 0.5, 0), dropped_ones(1, 5, 0, 0.5, 1));
}

TEST(Dropout, RateZeroAddsNoNodeAndRateOneIsRefused) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {2}});
  const ValueId position = b.input("position", {DType::kI64, {2}});
  EXPECT_EQ(ops::dropout(b, x, position, {.rate = 0}), x);
  EXPECT_THROW(ops::dropout(b, x, position, {.rate = 1}), Error);
}

}  // namespace
}  // namespace concord

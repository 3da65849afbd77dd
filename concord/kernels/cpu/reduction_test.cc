#include "concord/ops/reduction.h"

#include <gtest/gtest.h>

#include <limits>

#include "concord/kernels/kernel_check.h"
#include "concord/ops/arithmetic.h"

namespace concord::cpu {
namespace {

using Inputs = std::vector<ValueId>;

// Shapes whose passes are one or several, cut into parts or not, with and without remainders.
const std::vector<std::pair<Shape, Shape>> kCases = {
    {{3, 50}, {50}},
    {{3, 50}, {3, 1}},
    {{3, 50}, {}},
    {{3, 50}, {1, 1}},
    {{1, 3}, {3}},
    {{777, 10}, {10}},
    {{5000, 70}, {70}},
    {{70, 5000}, {70, 1}},
    {{130, 1100}, {1100}},
    {{100001}, {}},
    {{2, 3, 4, 5}, {3, 1, 5}},
    {{6, 5, 49}, {5, 1}},
    {{40, 30, 50}, {30, 1}},
    {{2, 3, 4, 5}, {2, 1, 4, 1}},
    {{7, 1}, {1}},
    {{2000, 3}, {3}},
};

TEST(CpuKernel, SumToShapeAndBroadcastTo) {
  for (const auto& [from, to] : kCases) {
    EXPECT_EQ(
        "", check_kernels({.inputs = {{DType::kF32, from}},
                           .build = [to = to](GraphBuilder& b,
                                              const Inputs& x) { ops::sum_to_shape(b, x[0], to); },
                           .tolerance = 3e-5,
                           .any_threads = true}))
        << to_string(from) << to_string(to);
  }
}

TEST(CpuKernel, SumOverNothingIsZero) {
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {0, 3}}},
                               .build = [](GraphBuilder& b,
                                           const Inputs& x) { ops::sum_to_shape(b, x[0], {3}); },
                               .backward = false}));
}

// Sums of many equal numbers: one running f32 sum would be far off.
TEST(CpuKernel, LongSumsStayAccurate) {
  for (const Shape& shape : {Shape{300000}, Shape{300000, 1}, Shape{150000, 2}}) {
    ref::Array x(shape);
    std::fill(x.data.begin(), x.data.end(), 0.1);
    EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, shape}},
                                 .build =
                                     [&](GraphBuilder& b, const Inputs& in) {
                                       ops::sum_to_shape(b, in[0],
                                                         Shape{shape.rank() == 1 ? 1 : shape[1]});
                                     },
                                 .fixed = {{"x0", x}},
                                 .tolerance = 2e-6,
                                 .backward = false}));
  }
}

TEST(CpuKernel, Reductions) {
  for (const auto reduce : {ops::reduce_sum, ops::reduce_mean, ops::reduce_max}) {
    for (const bool keep : {false, true}) {
      for (const Inputs& dims : {Inputs{}, Inputs{0}, Inputs{-1}, Inputs{0, 2}}) {
        EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {7, 33, 21}}},
                                     .build =
                                         [&](GraphBuilder& b, const Inputs& x) {
                                           reduce(b, x[0], {dims.begin(), dims.end()}, keep);
                                         },
                                     .any_threads = true}));
      }
    }
  }
}

TEST(CpuKernel, MaximumOfNaNIsNaN) {
  for (const std::int64_t place : {0, 3, 69, 99}) {
    for (const std::int64_t dim : {0, 1}) {
      ref::Array x({100, 100});
      x[place * 100 + place] = std::numeric_limits<double>::quiet_NaN();
      EXPECT_EQ("",
                check_kernels({.inputs = {{DType::kF32, x.shape}},
                               .build = [&](GraphBuilder& b,
                                            const Inputs& in) { ops::reduce_max(b, in[0], {dim}); },
                               .fixed = {{"x0", x}},
                               .backward = false}));
    }
  }
}

}  // namespace
}  // namespace concord::cpu

#include "concord/ops/arithmetic.h"

#include <gtest/gtest.h>

#include <limits>

#include "concord/kernels/cpu/check_layouts.h"
#include "concord/kernels/kernel_check.h"
#include "concord/ops/step.h"

namespace concord::cpu {
namespace {

using Inputs = std::vector<ValueId>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

constexpr auto kBinary = {ops::add, ops::sub, ops::mul, ops::div};
constexpr auto kUnary = {ops::neg, ops::exp, ops::square, ops::log, ops::sqrt, ops::abs};

// Draws kept away from 0, so that quotients stay comparable.
ref::Array from_half_to_two(const Shape& shape) {
  ref::Array array(shape);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    array[i] = 0.5 + 1.5 * static_cast<double>(i * 37 % 101) / 100;
  }
  return array;
}

TEST(CpuKernel, BinaryArithmeticBroadcasts) {
  const std::vector<std::pair<Shape, Shape>> shapes = {{{3, 50}, {3, 50}},
                                                       {{3, 50}, {50}},
                                                       {{3, 50}, {3, 1}},
                                                       {{3, 50}, {}},
                                                       {{}, {3, 50}},
                                                       {{50}, {3, 50}},
                                                       {{2, 1, 3}, {4, 1}},
                                                       {{1}, {1, 1}},
                                                       {{130, 141}, {141}},
                                                       {{130, 141}, {130, 1}},
                                                       {{2, 5, 4, 3}, {5, 1, 1}},
                                                       {{2, 3, 1, 5}, {1, 3, 4, 1}}};
  for (const auto& function : kBinary) {
    for (const auto& [a, b] : shapes) {
      EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, a}, {DType::kF32, b}},
                                   .build = [&](GraphBuilder& g,
                                                const Inputs& x) { function(g, x[0], x[1]); },
                                   .fixed = {{"x1", from_half_to_two(b)}},
                                   .any_threads = true}))
          << to_string(a) << to_string(b);
    }
  }
}

TEST(CpuKernel, BinaryArithmeticInOtherLayouts) {
  const Shape shape = {2, 5, 3, 7};
  for (const auto layout : {channels_last, channel_tiles}) {
    for (const Shape& b : {shape, Shape{}}) {
      for (const auto& function : kBinary) {
        EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, shape}, {DType::kF32, b}},
                                     .build = [&](GraphBuilder& g,
                                                  const Inputs& x) { function(g, x[0], x[1]); },
                                     .fixed = {{"x1", from_half_to_two(b)}},
                                     .offered = layout(shape)}));
      }
    }
  }
}

TEST(CpuKernel, UnaryArithmetic) {
  for (const Shape& shape : {Shape{}, Shape{3, 50}, Shape{2, 5, 3, 7}}) {
    for (const auto& function : kUnary) {
      KernelCheck check = {.inputs = {{DType::kF32, shape}},
                           .build = [&](GraphBuilder& g, const Inputs& x) { function(g, x[0]); },
                           .fixed = {{"x0", from_half_to_two(shape)}},
                           .tolerance = 1e-6};
      EXPECT_EQ("", check_kernels(check));
      if (shape.rank() != 4) continue;
      check.offered = channel_tiles(shape);
      EXPECT_EQ("", check_kernels(check));
    }
  }
}

TEST(CpuKernel, ExponentialAndLogarithmAtTheirLimits) {
  const double infinity = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto check = [](auto function, const std::vector<double>& x) {
    const Shape shape = {static_cast<std::int64_t>(x.size())};
    return check_kernels({.inputs = {{DType::kF32, shape}},
                          .build = [=](GraphBuilder& g, const Inputs& in) { function(g, in[0]); },
                          .fixed = {{"x0", ref::Array(shape, x)}},
                          .tolerance = 2e-6,
                          .backward = false});
  };
  EXPECT_EQ("", check(ops::exp, {-infinity, -200, -87, 0, 80, nan, infinity}));
  EXPECT_EQ("", check(ops::log, {-1, 0, 1e-38, 1, 1e38, nan, infinity}));
}

TEST(CpuKernel, EqualScaleAndConstant) {
  EXPECT_EQ("", check_kernels(
                    {.inputs = {{DType::kF32, {2, 3}}, {DType::kF32, {3}}},
                     .build = [](GraphBuilder& g, const Inputs& x) { ops::equal(g, x[0], x[1]); },
                     .fixed = {{"x0", ref::Array({2, 3}, {1, 2, 3, 3, 2, 1})},
                               {"x1", ref::Array({3}, {1, 2, 1})}},
                     .backward = false}));
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {3, 50}}},
                               .build = [](GraphBuilder& g, const Inputs& x) {
                                 ops::scale(g, x[0], -2.5);
                               }}));
  for (const DType dtype :
       {DType::kF32, DType::kF64, DType::kBF16, DType::kI32, DType::kI64, DType::kU8}) {
    EXPECT_EQ("", check_kernels({.inputs = {},
                                 .build =
                                     [=](GraphBuilder& g, const Inputs&) {
                                       ops::constant(g, {dtype, {2, 3}}, 3);
                                     },
                                 .backward = false}));
  }
}

TEST(CpuKernel, AbsAndItsSlopeAtZero) {
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {5}}},
                               .build = [](GraphBuilder& b, const Inputs& x) { ops::abs(b, x[0]); },
                               .fixed = {{"x0", ref::Array({5}, {-2, -0.0, 0, 1e-30, 3})}},
                               .tolerance = 1e-9}));
}

TEST(CpuKernel, Clamp) {
  for (const Shape& shape : {Shape{}, Shape{3, 50}, Shape{20001}}) {
    EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, shape}},
                                 .build = [](GraphBuilder& b,
                                             const Inputs& x) { ops::clamp(b, x[0], -0.5, 1); },
                                 .tolerance = 0,
                                 .any_threads = true}));
  }
  EXPECT_EQ("", check_kernels(
                    {.inputs = {{DType::kF32, {5}}},
                     .build = [](GraphBuilder& b, const Inputs& x) { ops::clamp(b, x[0], 0, 6); },
                     .fixed = {{"x0", ref::Array({5}, {-1, 0, 6, 7, kNaN})}},
                     .tolerance = 0,
                     .backward = false}));
}

}  // namespace
}  // namespace concord::cpu

#include "concord/ops/shape_ops.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "concord/base/error.h"
#include "concord/kernels/kernel_check.h"

namespace concord::cpu {
namespace {

using Inputs = std::vector<ValueId>;

std::string check(std::vector<TensorType> inputs,
                  std::function<void(GraphBuilder&, const Inputs&)> build, bool backward = true) {
  return check_kernels({.inputs = std::move(inputs),
                        .build = std::move(build),
                        .tolerance = 1e-6,
                        .backward = backward});
}

TEST(CpuKernel, Reshape) {
  EXPECT_EQ("", check({{DType::kF32, {4, 6}}}, [](auto& b, auto& x) {
              ops::reshape(b, x[0], {3, -1, 2});
            }));
}

TEST(CpuKernel, TransposeInEveryPermutation) {
  for (const Shape& shape : {Shape{3, 5, 7}, Shape{33, 2, 70}, Shape{1, 40, 20}}) {
    std::vector<std::int64_t> permutation = {0, 1, 2};
    do {
      EXPECT_EQ("", check({{DType::kF32, shape}},
                          [&](auto& b, auto& x) { ops::transpose(b, x[0], permutation); }))
          << to_string(shape) << to_string(Shape(permutation));
    } while (std::next_permutation(permutation.begin(), permutation.end()));
  }
  EXPECT_EQ("", check({{DType::kF32, {2, 3, 4, 5}}}, [](auto& b, auto& x) {
              ops::transpose(b, x[0], {0, 2, 3, 1});
            }));
  EXPECT_EQ("", check({{DType::kF32, {2, 3, 4, 5}}}, [](auto& b, auto& x) {
              ops::transpose(b, x[0], {3, 1, 0, 2});
            }));
}

TEST(CpuKernel, TransposeOfEveryElementSize) {
  for (const DType dtype : {DType::kU8, DType::kI32, DType::kI64, DType::kF64}) {
    ref::Array x({20, 30});
    for (std::int64_t i = 0; i < 600; ++i) x[i] = static_cast<double>(i % 251);
    EXPECT_EQ("", check_kernels({.inputs = {{dtype, x.shape}},
                                 .build =
                                     [](GraphBuilder& b, const Inputs& in) {
                                       ops::transpose(b, in[0], {1, 0});
                                     },
                                 .fixed = {{"x0", x}},
                                 .tolerance = 0,
                                 .backward = false}));
  }
}

TEST(CpuKernel, ConcatSliceAndPadSlice) {
  const TensorType a{DType::kF32, {2, 3, 5}}, c{DType::kF32, {2, 4, 5}};
  EXPECT_EQ("", check({a, c}, [](auto& b, auto& x) { ops::concat(b, {x[0], x[1], x[0]}, 1); }));
  EXPECT_EQ("", check({a, a}, [](auto& b, auto& x) { ops::concat(b, {x[0], x[1]}, -1); }));
  EXPECT_EQ("", check({a, a}, [](auto& b, auto& x) { ops::concat(b, {x[0], x[1]}, 0); }));
  EXPECT_EQ("", check({a}, [](auto& b, auto& x) { ops::slice(b, x[0], 1, 1, 3); }));
  EXPECT_EQ("", check({a}, [](auto& b, auto& x) { ops::slice(b, x[0], 2, 0, 4); }));
  EXPECT_EQ("", check(
                    {a}, [](auto& b, auto& x) { ops::slice(b, x[0], 0, 1, 1); }, false));
  EXPECT_EQ("", check({a}, [](auto& b, auto& x) { ops::pad_slice(b, x[0], 1, 2, 7); }));
}

TEST(CpuKernel, Split) {
  const TensorType x{DType::kF32, {2, 6, 5}};
  EXPECT_EQ("", check({x}, [](auto& b, auto& in) { ops::split(b, in[0], 1, {3, 1, 2}); }));
  EXPECT_EQ("", check({x}, [](auto& b, auto& in) { ops::split(b, in[0], -1, {1, 4}); }));
  EXPECT_EQ("", check({x}, [](auto& b, auto& in) { ops::split(b, in[0], 0, {2, 0}); }));
}

TEST(CpuKernel, DynamicSliceAndItsReverse) {
  const TensorType position{DType::kI64, {}};
  for (const DType dtype : {DType::kF32, DType::kI64}) {
    for (const std::int64_t dim : {0, 1, 2}) {
      for (const double start : {0.0, 2.0}) {
        ref::Array x({4, 5, 4});
        for (std::int64_t i = 0; i < 80; ++i) x[i] = static_cast<double>(i);
        EXPECT_EQ("", check_kernels({.inputs = {{dtype, x.shape}, position, position},
                                     .build =
                                         [&](GraphBuilder& b, const Inputs& in) {
                                           const ValueId part =
                                               ops::dynamic_slice(b, in[0], in[1], dim, 2);
                                           ops::dynamic_update_slice(b, in[0], part, in[2], dim);
                                         },
                                     .fixed = {{"x0", x},
                                               {"x1", ref::Array({}, {start})},
                                               {"x2", ref::Array({}, {1.0})}},
                                     .tolerance = 0,
                                     .backward = false}))
            << "dim " << dim << " from " << start;
      }
    }
  }
}

// That the CPU kernels refuse it too shows in the decoder, which gives them positions.
TEST(RefKernel, DynamicSliceStopsOutsideOfTheDim) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId start = b.input("start", {DType::kI64, {}});
  ops::dynamic_slice(b, b.input("x", {DType::kF32, {5}}), start, 0, 2);
  for (const double outside : {-1.0, 4.0, 6.0}) {
    EXPECT_THROW(
        ref::evaluate(graph, {{"x", ref::Array({5})}, {"start", ref::Array({}, {outside})}}),
        Error);
  }
}

TEST(CpuKernel, CastBetweenAllTypes) {
  const auto types = {DType::kF32, DType::kF64, DType::kBF16, DType::kI32, DType::kI64, DType::kU8};
  for (const DType from : types) {
    for (const DType to : types) {
      if (from == to) continue;
      EXPECT_EQ("", check_kernels(
                        {.inputs = {{from, {4}}},
                         .build = [=](GraphBuilder& b, const Inputs& x) { ops::cast(b, x[0], to); },
                         .fixed = {{"x0", ref::Array({4}, {0, 1, 7, 200})}},
                         .tolerance = 0,
                         .backward = false}));
    }
  }
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {100}}},
                               .build =
                                   [](GraphBuilder& b, const Inputs& x) {
                                     ops::cast(b, ops::cast(b, x[0], DType::kBF16), DType::kF32);
                                   },
                               .tolerance = 1.0 / 256}));
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {4}}},
                               .build = [](GraphBuilder& b,
                                           const Inputs& x) { ops::cast(b, x[0], DType::kI32); },
                               .fixed = {{"x0", ref::Array({4}, {-1.9, -0.5, 0.5, 1.9})}},
                               .tolerance = 0,
                               .backward = false}));
}

}  // namespace
}  // namespace concord::cpu

#include "concord/ops/matmul.h"

#include <gtest/gtest.h>

#include "concord/kernels/kernel_check.h"

namespace concord::cpu {
namespace {

TEST(CpuKernel, MatmulInEveryOrientation) {
  const struct {
    std::int64_t rows, inner, columns;
  } cases[] = {{4, 5, 3}, {1, 7, 1}, {33, 1, 17}, {64, 100, 48}};
  for (const auto& c : cases) {
    for (const bool ta : {false, true}) {
      for (const bool tb : {false, true}) {
        const Shape a = ta ? Shape{c.inner, c.rows} : Shape{c.rows, c.inner};
        const Shape b = tb ? Shape{c.columns, c.inner} : Shape{c.inner, c.columns};
        EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, a}, {DType::kF32, b}},
                                     .build =
                                         [&](GraphBuilder& g, const std::vector<ValueId>& x) {
                                           ops::matmul(g, x[0], x[1],
                                                       {.transpose_a = ta, .transpose_b = tb});
                                         },
                                     .tolerance = 5e-5}));
      }
    }
  }
}

TEST(CpuKernel, MatmulOfARow) {
  for (const std::int64_t inner : {1, 16, 37, 300}) {
    for (const std::int64_t columns : {1, 4, 7, 1000}) {
      EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {1, inner}},
                                              {DType::kF32, {columns, inner}},
                                              {DType::kF32, {columns}}},
                                   .build =
                                       [](GraphBuilder& g, const std::vector<ValueId>& x) {
                                         ops::matmul(g, x[0], x[1], {.transpose_b = true}, x[2]);
                                       },
                                   .backward = false,
                                   .any_threads = true}))
          << inner << " by " << columns;
    }
  }
}

TEST(CpuKernel, MatmulOfStacksWithBias) {
  for (const bool tb : {false, true}) {
    EXPECT_EQ("",
              check_kernels({.inputs = {{DType::kF32, {2, 3, 5, 7}},
                                        {DType::kF32, tb ? Shape{2, 3, 4, 7} : Shape{2, 3, 7, 4}},
                                        {DType::kF32, {4}}},
                             .build =
                                 [&](GraphBuilder& g, const std::vector<ValueId>& x) {
                                   ops::matmul(g, x[0], x[1], {.transpose_b = tb}, x[2]);
                                 },
                             .backward = false}));
  }
  EXPECT_EQ("",
            check_kernels(
                {.inputs = {{DType::kF32, {6, 20}}, {DType::kF32, {20, 10}}, {DType::kF32, {10}}},
                 .build = [](GraphBuilder& g, const std::vector<ValueId>& x) {
                   ops::matmul(g, x[0], x[1], {}, x[2]);
                 }}));
}

}  // namespace
}  // namespace concord::cpu

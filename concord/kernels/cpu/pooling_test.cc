#include "concord/ops/pooling.h"

#include <gtest/gtest.h>

#include "concord/kernels/cpu/check_layouts.h"

namespace concord::cpu {
namespace {

struct Case {
  Shape x;
  ops::Pool2dOptions options;
};

const Case kCases[] = {
    {{2, 16, 8, 8}, {.kernel = {2, 2}, .stride = {2, 2}}},
    {{1, 20, 7, 9}, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}},
    {{2, 3, 7, 5}, {.kernel = {3, 2}, .stride = {1, 2}, .padding = {1, 0}}},
    {{1, 32, 7, 9}, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}},
    {{1, 64, 5, 5}, {.kernel = {5, 5}}},
    {{3, 6, 9, 9}, {.kernel = {2, 2}, .stride = {3, 3}}},  // windows leave gaps
    {{1, 1, 6, 6}, {.kernel = {3, 3}, .stride = {3, 3}}},
    {{2, 16, 6, 6}, {.kernel = {3, 3}, .stride = {3, 3}}},
    {{2, 16, 9, 9}, {.kernel = {2, 2}, .stride = {3, 3}}},  // windows leave gaps
};

TEST(CpuKernel, MaxPool) {
  for (const Case& c : kCases) {
    EXPECT_EQ("",
              check_free_and_row_major({.inputs = {{DType::kF32, c.x}},
                                        .build =
                                            [&](GraphBuilder& b, const std::vector<ValueId>& x) {
                                              ops::max_pool2d(b, x[0], c.options);
                                            },
                                        .tolerance = 1e-6}));
  }
}

TEST(CpuKernel, MaxPoolOfNeighbouringSamples) {
  // Windows that leave a row over, and windows that leave nothing.
  for (const Shape& shape : {Shape{32, 3, 5, 6}, Shape{32, 3, 4, 6}}) {
    const std::int64_t row = shape[3] * 16, plane = shape[2] * row;
    const Layout tiles(shape, {3 * plane, plane, row, 16}, shape.dims(), {{0, 16}});
    EXPECT_EQ("",
              check_kernels({.inputs = {{DType::kF32, shape}},
                             .build =
                                 [](GraphBuilder& b, const std::vector<ValueId>& x) {
                                   ops::max_pool2d(b, x[0], {.kernel = {2, 2}, .stride = {2, 2}});
                                 },
                             .tolerance = 1e-6,
                             .offered = tiles}));
  }
}

// 256 places do not fit into a byte.
TEST(CpuKernel, MaxPoolWithALargeWindow) {
  EXPECT_EQ("", check_free_and_row_major(
                    {.inputs = {{DType::kF32, {1, 16, 20, 20}}},
                     .build = [](GraphBuilder& b, const std::vector<ValueId>& x) {
                       ops::max_pool2d(b, x[0], {.kernel = {16, 16}, .stride = {2, 2}});
                     }}));
}

TEST(CpuKernel, MaxPoolTakesTheFirstOfEquals) {
  for (const std::int64_t channels : {1, 16}) {
    const Shape shape{1, channels, 6, 6};
    EXPECT_EQ("", check_free_and_row_major(
                      {.inputs = {{DType::kF32, shape}},
                       .build =
                           [](GraphBuilder& b, const std::vector<ValueId>& x) {
                             ops::max_pool2d(b, x[0], {.kernel = {3, 3}, .padding = {1, 1}});
                           },
                       .fixed = {{"x0", ref::Array(shape)}}}));
  }
}

TEST(CpuKernel, AveragePool) {
  for (const Case& c : kCases) {
    for (const bool include : {false, true}) {
      EXPECT_EQ("",
                check_free_and_row_major({.inputs = {{DType::kF32, c.x}},
                                          .build =
                                              [&](GraphBuilder& b, const std::vector<ValueId>& x) {
                                                ops::avg_pool2d(b, x[0], c.options, include);
                                              },
                                          .tolerance = 1e-6}));
    }
  }
}

}  // namespace
}  // namespace concord::cpu

#include "concord/ops/rotary_embedding.h"

#include <gtest/gtest.h>

#include "concord/kernels/kernel_check.h"

namespace concord::cpu {
namespace {

TEST(CpuKernel, RotaryEmbedding) {
  struct Case {
    Shape shape;
    std::int64_t heads;
  };
  for (const Case& c : {Case{{2, 40, 3, 64}, 0}, Case{{1, 7, 2, 6}, 1}, Case{{1, 5, 1, 2}, 0},
                        Case{{2, 300, 6, 80}, 4}}) {
    for (const std::int64_t first : {0, 1000}) {
      EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, c.shape}},
                                   .build =
                                       [&](GraphBuilder& b, const std::vector<ValueId>& x) {
                                         ops::rotary_embedding(
                                             b, x[0], {.first_position = first, .heads = c.heads});
                                       },
                                   .tolerance = 1e-6,
                                   .any_threads = true}));
    }
  }
}

TEST(CpuKernel, RotaryEmbeddingFromAPositionThatIsAnInput) {
  for (const double position : {0.0, 3.0, 1000.0}) {
    EXPECT_EQ("", check_kernels({.inputs = {{DType::kF32, {2, 5, 3, 20}}, {DType::kI64, {}}},
                                 .build =
                                     [&](GraphBuilder& b, const std::vector<ValueId>& x) {
                                       ops::rotary_embedding(
                                           b, x[0],
                                           {.first_position = 7, .heads = 2, .position = x[1]});
                                     },
                                 .fixed = {{"x1", ref::Array({}, {position})}},
                                 .tolerance = 1e-6,
                                 .any_threads = true}));
  }
}

// Su et al. 2021, equation 11: positions count by their distance only.
TEST(CpuKernel, RotaryEmbeddingKeepsProductsOfEqualDistance) {
  const auto product = [](std::int64_t query, std::int64_t key) {
    Graph graph;
    GraphBuilder b(graph);
    const Shape shape{1, 1, 1, 4};
    ops::rotary_embedding(b, b.input("q", {DType::kF32, shape}),
                          {.base = 100, .first_position = query});
    ops::rotary_embedding(b, b.input("k", {DType::kF32, shape}),
                          {.base = 100, .first_position = key});
    const std::vector<ref::Array> values = ref::evaluate(
        graph,
        {{"q", ref::Array(shape, {1, 2, -1, 3})}, {"k", ref::Array(shape, {0.5, -1, 2, 1})}});
    double sum = 0;
    for (std::int64_t i = 0; i < 4; ++i) sum += values[1][i] * values[3][i];
    return sum;
  };
  EXPECT_NEAR(product(7, 3), product(14, 10), 1e-12);
  EXPECT_GT(std::abs(product(7, 3) - product(7, 4)), 1e-2);
}

}  // namespace
}  // namespace concord::cpu

#include "concord/ops/gather.h"

#include <gtest/gtest.h>

#include "concord/kernels/kernel_check.h"

namespace concord::cpu {
namespace {

using Inputs = std::vector<ValueId>;

std::string check_gather(const Shape& x, std::int64_t dim, ref::Array indices) {
  return check_kernels(
      {.inputs = {{DType::kF32, x}, {DType::kI32, indices.shape}},
       .build = [=](GraphBuilder& b, const Inputs& in) { ops::gather(b, in[0], in[1], dim); },
       .fixed = {{"x1", std::move(indices)}},
       .tolerance = 1e-6,
       .any_threads = true});
}

TEST(CpuKernel, GatherAlongEveryDim) {
  const ref::Array indices({2, 3}, {2, 0, 2, 2, 1, -1});
  EXPECT_EQ("", check_gather({3, 4, 5}, 0, indices));
  EXPECT_EQ("", check_gather({4, 3, 5}, 1, indices));
  EXPECT_EQ("", check_gather({4, 5, 3}, -1, indices));
  EXPECT_EQ("", check_gather({7, 40}, 0, ref::Array(Shape{}, {6})));
}

TEST(CpuKernel, GatherIndexOutsideTheDimGivesNaN) {
  EXPECT_EQ("", check_gather({3, 4}, 0, ref::Array({4}, {3, -4, 2147483647, -3})));
  EXPECT_EQ("", check_gather({2, 3, 4}, 1, ref::Array({2}, {1, 3})));
}

TEST(CpuKernel, GatherOfBytes) {
  EXPECT_EQ("", check_kernels({.inputs = {{DType::kU8, {3, 2}}, {DType::kI32, {4}}},
                               .build = [](GraphBuilder& b,
                                           const Inputs& x) { ops::gather(b, x[0], x[1], 0); },
                               .fixed = {{"x0", ref::Array({3, 2}, {1, 2, 3, 4, 5, 255})},
                                         {"x1", ref::Array({4}, {2, 0, 1, 2})}},
                               .tolerance = 0,
                               .backward = false}));
}

// Each part of a table of 6 rows: rows of the other give zeros, ids outside of both NaN, in the
// first part alone.
TEST(CpuKernel, GatherFromAPartOfTheRows) {
  for (const std::int64_t negative_from_end : {0, 1}) {
    for (const std::int64_t first : {0, 3}) {
      EXPECT_EQ("",
                check_kernels({.inputs = {{DType::kF32, {3, 20}}, {DType::kI32, {2, 4}}},
                               .build =
                                   [&](GraphBuilder& b, const Inputs& x) {
                                     b.node1("gather", {x[0], x[1]},
                                             {{"dim", std::int64_t{0}},
                                              {"negative_from_end", negative_from_end},
                                              {"first", first},
                                              {"whole_extent", std::int64_t{6}}});
                                   },
                               .fixed = {{"x1", ref::Array({2, 4}, {0, 3, 2, 5, 6, -1, 3, -7})}},
                               .tolerance = 1e-6,
                               .any_threads = true}));
    }
  }
}

std::string check_embedding(const Shape& table, ref::Array ids) {
  return check_kernels(
      {.inputs = {{DType::kF32, table}, {DType::kI32, ids.shape}},
       .build = [](GraphBuilder& b, const Inputs& x) { ops::embedding(b, x[0], x[1]); },
       .fixed = {{"x1", std::move(ids)}},
       .any_threads = true});
}

// Many positions share an id.
TEST(CpuKernel, Embedding) {
  for (const std::int64_t channels : {1, 16, 100, 384}) {
    ref::Array ids({8, 150});
    for (std::int64_t i = 0; i < 1200; ++i) ids[i] = static_cast<double>(i * i % 61);
    EXPECT_EQ("", check_embedding({70, channels}, std::move(ids)));
  }
}

TEST(CpuKernel, EmbeddingOfAnIdOutsideTheTableIsNaN) {
  EXPECT_EQ("", check_embedding({5, 3}, ref::Array({4}, {4, -1, 5, 0})));
}

}  // namespace
}  // namespace concord::cpu

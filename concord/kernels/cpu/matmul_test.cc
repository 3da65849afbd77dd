#include "concord/ops/matmul.h"

#include <gtest/gtest.h>

#include <random>

#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/kernel_check.h"
#include "concord/tensor/buffer.h"

namespace concord::cpu {
namespace {

struct ProductShape {
  std::int64_t rows, inner, columns;
};

std::vector<float> numbers(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> found;
  for (std::int64_t i = 0; i < count; ++i) {
    found.push_back(static_cast<float>(random() % 2001) / 1000.0f - 1);
  }
  return found;
}

// Rows and columns [first, first + count) of a matrix whose rows are `width` long.
struct Block {
  std::int64_t row, column, rows, columns, width;
};
std::vector<float> block(const std::vector<float>& x, const Block& b) {
  std::vector<float> found;
  for (std::int64_t r = b.row; r < b.row + b.rows; ++r) {
    const auto begin = x.begin() + r * b.width + b.column;
    found.insert(found.end(), begin, begin + b.columns);
  }
  return found;
}

std::vector<float> product(const ProductShape& c, bool ta, bool tb, std::vector<float> a,
                           std::vector<float> b) {
  const Node node{
      .op = "matmul",
      .attributes = {{"transpose_a", std::int64_t{ta}}, {"transpose_b", std::int64_t{tb}}}};
  const Signature signature{
      node,
      {{{DType::kF32, ta ? Shape{c.inner, c.rows} : Shape{c.rows, c.inner}}, {}},
       {{DType::kF32, tb ? Shape{c.columns, c.inner} : Shape{c.inner, c.columns}}, {}}},
      {{{DType::kF32, {c.rows, c.columns}}, {}}}};
  KernelPolicy policy{.same_in_parts = true};
  const std::unique_ptr<Kernel> kernel = find_kernel_rule("matmul").make(signature, policy);
  std::vector<float> y(static_cast<std::size_t>(c.rows * c.columns));
  Buffer scratch(std::max<std::size_t>(64, kernel->scratchpad_bytes()));
  std::byte* const operands[] = {reinterpret_cast<std::byte*>(a.data()),
                                 reinterpret_cast<std::byte*>(b.data()),
                                 reinterpret_cast<std::byte*>(y.data()), scratch.data()};
  kernel->run({operands, kernel->scratchpad_bytes() > 0 ? std::size_t{4} : std::size_t{3}});
  return y;
}

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

// The products of a layer, forward and backward, by columns and by rows: `parts` of each, against
// the same of the whole.
std::string difference_of_parts(const ProductShape& c, bool ta, bool tb, std::int64_t parts,
                                bool by_rows) {
  const std::vector<float> a = numbers(c.rows * c.inner, 1), b = numbers(c.inner * c.columns, 2);
  const std::vector<float> whole = product(c, ta, tb, a, b);
  ProductShape part = c;
  (by_rows ? part.rows : part.columns) /= parts;
  for (std::int64_t p = 0; p < parts; ++p) {
    const std::int64_t row = by_rows ? p * part.rows : 0, column = by_rows ? 0 : p * part.columns;
    const std::vector<float> some =
        product(part, ta, tb,
                block(a, ta ? Block{0, row, c.inner, part.rows, c.rows}
                            : Block{row, 0, part.rows, c.inner, c.inner}),
                block(b, tb ? Block{column, 0, part.columns, c.inner, c.inner}
                            : Block{0, column, c.inner, part.columns, c.columns}));
    if (some != block(whole, {row, column, part.rows, part.columns, c.columns})) {
      return fmt::format("{} by {} by {}, {} of {}{}", c.rows, c.inner, c.columns, parts,
                         by_rows ? "rows" : "columns",
                         ta   ? ", a transposed"
                         : tb ? ", b transposed"
                              : "");
    }
  }
  return "";
}

TEST(CpuKernel, PartsOfAProductHaveTheBitsOfTheWhole) {
  for (const ProductShape& c :
       {ProductShape{64, 1024, 1024}, ProductShape{1024, 256, 96}, ProductShape{512, 2048, 1024},
        ProductShape{16, 300, 8}, ProductShape{1024, 4096, 64}}) {
    for (const std::int64_t parts : {2, 4}) {
      for (const bool by_rows : {false, true}) {
        EXPECT_EQ("", difference_of_parts(c, false, false, parts, by_rows));
        EXPECT_EQ("", difference_of_parts(c, true, false, parts, by_rows));
        EXPECT_EQ("", difference_of_parts(c, false, true, parts, by_rows));
      }
    }
  }
}

}  // namespace
}  // namespace concord::cpu

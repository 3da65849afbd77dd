#include "concord/tensor/layout.h"

#include <gtest/gtest.h>

#include <set>

namespace concord {
namespace {

std::int64_t offset(const Layout& layout, const Shape& shape,
                    const std::vector<std::int64_t>& index) {
  std::int64_t sum = 0;
  for (int d = 0; d < shape.rank(); ++d) {
    sum +=
        layout.dim_offsets(shape, d)[static_cast<std::size_t>(index[static_cast<std::size_t>(d)])];
  }
  return sum;
}

TEST(Layout, BlockedChannelsLieInnermost) {
  const Shape shape{2, 20, 3, 3};
  const Layout layout(shape, {32 * 9, 16 * 9, 3 * 16, 16}, {2, 32, 3, 3}, {{1, 16}});
  EXPECT_EQ(layout.stored_elements(shape), 2 * 32 * 9);
  EXPECT_TRUE(layout.has_padding(shape));
  EXPECT_EQ(offset(layout, shape, {1, 17, 2, 1}), 32 * 9 + 16 * 9 + 2 * 48 + 16 + 1);
}

TEST(Layout, DoubleBlocksAreOneToOne) {
  const Shape shape{32, 32, 3, 3};
  const Layout layout(shape, {2 * 9 * 256, 9 * 256, 3 * 256, 256}, {32, 32, 3, 3},
                      {{1, 16}, {0, 16}});
  std::set<std::int64_t> seen;
  for (int o = 0; o < 32; ++o)
    for (int i = 0; i < 32; ++i)
      for (int k = 0; k < 9; ++k) seen.insert(offset(layout, shape, {o, i, k / 3, k % 3}));
  EXPECT_EQ(seen.size(), 32u * 32 * 9);
  EXPECT_EQ(*seen.rbegin(), 32 * 32 * 9 - 1);
}

TEST(Layout, RowMajorStridesAreRecognised) {
  EXPECT_TRUE(Layout({2, 3}, {3, 1}, {2, 3}, {}).is_row_major());
  EXPECT_FALSE(Layout({2, 3}, {1, 2}, {2, 3}, {}).is_row_major());
  EXPECT_TRUE(Layout({8, 1, 1, 1}, {1, 1, 8, 8}, {8, 1, 1, 1}, {}).is_row_major());
}

}  // namespace
}  // namespace concord

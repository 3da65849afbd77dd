#include "concord/tensor/layout.h"

#include <gtest/gtest.h>

#include <set>

#include "concord/tensor/relayout.h"

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

TEST(Relayout, RoundTripsAndZeroesPadding) {
  const TensorType type{DType::kF32, {2, 5, 3}};
  const Layout layout(type.shape, {24, 24, 8}, {2, 8, 3}, {{1, 8}});
  OwnedTensor plain(type), back(type);
  for (std::size_t i = 0; i < plain.as<float>().size(); ++i) {
    plain.as<float>()[i] = static_cast<float>(i + 1);
  }
  Buffer stored(stored_bytes(type, layout));
  auto* words = reinterpret_cast<float*>(stored.data());
  std::fill_n(words, stored.bytes() / 4, -1.0f);
  to_layout(type, layout, plain.view().data, stored.data());
  from_layout(type, layout, stored.data(), back.view().data);
  EXPECT_EQ(std::vector<float>(plain.as<float>().begin(), plain.as<float>().end()),
            std::vector<float>(back.as<float>().begin(), back.as<float>().end()));
  EXPECT_EQ(std::count(words, words + stored.bytes() / 4, 0.0f), 2 * 3 * 3);
}

}  // namespace
}  // namespace concord

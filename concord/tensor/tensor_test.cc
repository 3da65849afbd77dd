#include <gtest/gtest.h>

#include <cmath>

#include "concord/tensor/buffer.h"

namespace concord {
namespace {

TEST(Shape, BroadcastsFromTheEnd) {
  EXPECT_EQ(broadcast({4, 1, 3}, {5, 1}), (Shape{4, 5, 3}));
  EXPECT_EQ(broadcast({}, {2}), (Shape{2}));
}

TEST(Shape, NamesBothShapesWhenTheyDoNotBroadcast) {
  try {
    broadcast({2, 3}, {2, 4});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("[2, 3]"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("[2, 4]"), std::string::npos);
  }
}

TEST(Shape, RowMajorStrides) {
  EXPECT_EQ((Shape{2, 3, 4}).row_major_strides(), (std::vector<std::int64_t>{12, 4, 1}));
}

TEST(Buffer, IsAlignedAndZero) {
  const Buffer buffer(100);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
  for (std::size_t i = 0; i < 100; ++i) EXPECT_EQ(buffer.data()[i], std::byte{0});
}

TEST(BF16, RoundsToNearestEvenAndKeepsNaN) {
  EXPECT_EQ(static_cast<float>(BF16(1.0f)), 1.0f);
  EXPECT_EQ(BF16(1.00390625f).bits, BF16(1.0f).bits);  // a tie goes to even
  EXPECT_TRUE(std::isnan(static_cast<float>(BF16(NAN))));
}

}  // namespace
}  // namespace concord

#include "concord/formats/checksum.h"

#include <gtest/gtest.h>

namespace concord::formats {
namespace {

TEST(Checksum, MatchesTheReferenceImplementation) {
  std::string bytes;
  for (int i = 0; i < 1000; ++i) bytes.push_back(static_cast<char>(i % 251));
  EXPECT_EQ(checksum(""), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(checksum("abc"), "06b05ab6733a618578af5f94892f3950");
  EXPECT_EQ(checksum(bytes), "18bf41bc8229e27733ef703fb2b20ed1");
}

TEST(Checksum, IsTheSameInPieces) {
  const std::string bytes(1000, 'x');
  Checksum sum;
  EXPECT_EQ(sum.hex(), checksum(""));
  sum.update(std::string_view(bytes).substr(0, 333));
  sum.update(std::string_view());
  sum.update(std::as_bytes(std::span(bytes)).subspan(333));
  EXPECT_EQ(sum.hex(), checksum(bytes));
}

TEST(Crc32c, MatchesPublishedVectors) {
  // RFC 3720, section B.4, and the polynomial's customary check value.
  std::string ascending;
  for (int i = 0; i < 32; ++i) ascending.push_back(static_cast<char>(i));
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(ascending), 0x46dd794eu);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
}

}  // namespace
}  // namespace concord::formats

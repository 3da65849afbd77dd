#include "concord/cli/units.h"

#include <gtest/gtest.h>

#include <limits>

namespace concord::cli {
namespace {

TEST(Units, CountsHaveThreeDigitsAndAPowerOfThousand) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(950), "950");
  EXPECT_EQ(format_count(12.34), "12.3");
  EXPECT_EQ(format_count(999.6), "1.00 k");
  EXPECT_EQ(format_count(61'100'840), "61.1 M");
  EXPECT_EQ(format_count(2.4e9), "2.40 G");
  EXPECT_EQ(format_count(std::numeric_limits<double>::infinity()), "-");
}

TEST(Units, BytesArePowersOf1024) {
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(1024.0 * 1024 * 1024), "1.00 GiB");
}

TEST(Units, DurationsChangeTheirUnit) {
  EXPECT_EQ(format_duration(0.00083), "830 µs");
  EXPECT_EQ(format_duration(0.0025), "2.50 ms");
  EXPECT_EQ(format_duration(12.4), "12.4 s");
  EXPECT_EQ(format_duration(59.99), "1 min 00 s");
  EXPECT_EQ(format_duration(185), "3 min 05 s");
  EXPECT_EQ(format_duration(7800), "2 h 10 min");
  EXPECT_EQ(format_duration(-1), "-");
}

TEST(Units, OneThingIsNotSeveral) {
  EXPECT_EQ(counted(0, "thread"), "0 threads");
  EXPECT_EQ(counted(1, "thread"), "1 thread");
  EXPECT_EQ(counted(1, "leaf", "leaves"), "1 leaf");
  EXPECT_EQ(counted(4, "leaf", "leaves"), "4 leaves");
}

TEST(Units, PercentHasOneDigit) { EXPECT_EQ(format_percent(0.937), "93.7 %"); }

}  // namespace
}  // namespace concord::cli

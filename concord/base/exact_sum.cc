#include "concord/base/exact_sum.h"

#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>

namespace concord {
namespace {

constexpr std::size_t kNotFinite = ExactSum::kDigits - 1;
constexpr int kLowest = -1074;  // the exponent of the first digit's lowest bit
constexpr std::uint64_t kMask = 0xffffffff;

}  // namespace

void ExactSum::add(double x) {
  if (!std::isfinite(x)) {
    ++digits_[kNotFinite];
    return;
  }
  const auto bits = std::bit_cast<std::uint64_t>(x);
  const auto exponent = static_cast<int>(bits >> 52 & 0x7ff);
  const std::uint64_t fraction = bits & ((std::uint64_t{1} << 52) - 1);
  const std::uint64_t mantissa = exponent == 0 ? fraction : fraction | std::uint64_t{1} << 52;
  const int place = exponent == 0 ? 0 : exponent - 1;  // of its lowest bit, above kLowest
  const int shift = place % 32;
  const std::uint64_t low = mantissa << shift;
  const std::uint64_t high = shift == 0 ? 0 : mantissa >> (64 - shift);
  const std::int64_t sign = std::signbit(x) ? -1 : 1;
  std::int64_t* const digit = digits_.data() + place / 32;
  digit[0] += sign * static_cast<std::int64_t>(low & kMask);
  digit[1] += sign * static_cast<std::int64_t>(low >> 32);
  digit[2] += sign * static_cast<std::int64_t>(high);
}

void ExactSum::add(std::span<const std::int64_t, kDigits> other) {
  for (std::size_t i = 0; i < kDigits; ++i) digits_[i] += other[i];
}

double ExactSum::rounded() const {
  if (digits_[kNotFinite] != 0) return std::numeric_limits<double>::quiet_NaN();
  // One sign for all digits, and each below 2^32.
  std::array<std::int64_t, kDigits + 1> digits{};
  const auto carry_on = [&](std::int64_t sign) {
    std::int64_t carry = 0;
    for (std::size_t i = 0; i < kNotFinite; ++i) {
      const std::int64_t sum = sign * digits_[i] + carry;
      digits[i] = sum & static_cast<std::int64_t>(kMask);
      carry = sum >> 32;
    }
    digits[kNotFinite] = carry & static_cast<std::int64_t>(kMask);
    digits[kNotFinite + 1] = carry >> 32;
    return carry >= 0;
  };
  const bool positive = carry_on(1);
  if (!positive) carry_on(-1);
  std::size_t top = digits.size();
  while (top > 0 && digits[top - 1] == 0) --top;
  if (top == 0) return 0;
  const auto digit = [&](std::size_t below_top) {
    return below_top > top ? 0 : static_cast<std::uint64_t>(digits[top - below_top]);
  };
  // The first 64 bits from the highest one on, the last of which stands for all behind it.
  const int zeros = std::countl_zero(static_cast<std::uint32_t>(digit(1)));
  std::uint64_t first = (digit(1) << 32 | digit(2)) << zeros;
  if (zeros > 0) first |= digit(3) >> (32 - zeros);
  bool rest = (digit(3) << zeros & kMask) != 0;
  for (std::size_t i = 4; i <= top; ++i) rest = rest || digit(i) != 0;
  const double value = static_cast<double>(first | static_cast<std::uint64_t>(rest));
  const int exponent = kLowest + 32 * (static_cast<int>(top) - 2) - zeros;
  return std::ldexp(positive ? value : -value, exponent);
}

}  // namespace concord

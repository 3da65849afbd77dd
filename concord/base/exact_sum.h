// ExactSum: adds up doubles without rounding, so that neither their order nor who adds which of
// them changes the sum (U. Kulisch, W. Miranker, "The arithmetic of the digital computer: a new
// approach", 1986: an accumulator as wide as the range of exponents).
//
// It is kept as plain integers, which ranks can send each other and add up one by one.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace concord {

class ExactSum {
 public:
  // Digits of 32 bits from 2^-1074 on, and behind them how many numbers were not finite. Carries
  // wait in the upper half of a digit: 2^31 numbers can be added.
  static constexpr int kDigits = 68;
  using Digits = std::array<std::int64_t, kDigits>;

  void add(double x);
  void add(std::span<const std::int64_t, kDigits> other);
  // The nearest double; NaN where a number was not finite, infinity where it is too large.
  double rounded() const;
  const Digits& digits() const { return digits_; }

 private:
  Digits digits_{};
};

}  // namespace concord

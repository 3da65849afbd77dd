#include "concord/cli/units.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace concord::cli {
namespace {

// Three significant digits of a number from 0 up to 1024.
std::string three_digits(double value) {
  if (value >= 99.95) return fmt::format("{:.0f}", value);
  if (value >= 9.995) return fmt::format("{:.1f}", value);
  return fmt::format("{:.2f}", value);
}

std::string scaled(double value, double base, const std::array<const char*, 6>& units) {
  if (!std::isfinite(value)) return "-";
  std::size_t unit = 0;
  // 999.6 k is shown as 1.00 M, not as 1000 k.
  while (std::abs(value) >= base - 0.5 && unit + 1 < units.size()) {
    value /= base;
    ++unit;
  }
  const bool whole = unit == 0 && value == std::floor(value);
  const std::string number = whole ? fmt::format("{:.0f}", value) : three_digits(value);
  return *units[unit] == '\0' ? number : fmt::format("{} {}", number, units[unit]);
}

}  // namespace

std::string format_count(double value) {
  return scaled(value, 1000, {"", "k", "M", "G", "T", "P"});
}

std::string format_bytes(double bytes) {
  return scaled(bytes, 1024, {"B", "KiB", "MiB", "GiB", "TiB", "PiB"});
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "-";
  if (seconds < 0.0009995) return fmt::format("{} µs", three_digits(seconds * 1e6));
  if (seconds < 0.9995) return fmt::format("{} ms", three_digits(seconds * 1e3));
  if (seconds < 59.95) return fmt::format("{} s", three_digits(seconds));
  const auto whole = static_cast<std::int64_t>(std::min(std::round(seconds), 1e15));
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string format_percent(double fraction) {
  return std::isfinite(fraction) ? fmt::format("{:.1f} %", 100 * fraction) : "-";
}

std::string counted(std::int64_t count, std::string_view word, std::string_view plural) {
  if (count != 1 && !plural.empty()) word = plural;
  return fmt::format("{} {}{}", count, word, count != 1 && plural.empty() ? "s" : "");
}

}  // namespace concord::cli

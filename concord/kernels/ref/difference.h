// For tests: what one evaluation found beside what another did.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "concord/base/text.h"
#include "concord/kernels/ref/reference.h"

namespace concord::ref {

// The first difference beyond rounding, "" where there is none. NaN is like NaN alone.
inline std::string difference(const Array& expected, const Array& found) {
  if (expected.shape != found.shape) {
    return to_string(found.shape) + " in place of " + to_string(expected.shape);
  }
  double largest = 1e-12;
  for (const double x : expected.data) {
    if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
  }
  for (std::size_t i = 0; i < expected.data.size(); ++i) {
    const double a = expected.data[i], b = found.data[i];
    if (a == b || std::abs(a - b) <= 1e-9 * largest || (std::isnan(a) && std::isnan(b))) continue;
    return fmt::format("element {}: {} in place of {}", i, b, a);
  }
  return "";
}

}  // namespace concord::ref

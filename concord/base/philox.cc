#include "concord/base/philox.h"

#include <cmath>
#include <numbers>

namespace concord {

float normal01(std::uint32_t bits0, std::uint32_t bits1) {
  const double u = (static_cast<double>(bits0) + 0.5) / 4294967296.0;  // in (0, 1)
  const double v = (static_cast<double>(bits1) + 0.5) / 4294967296.0;
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v));
}

}  // namespace concord

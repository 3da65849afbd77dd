#include "concord/kernels/cpu/elementwise.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <limits>
#include <vector>

namespace concord::cpu {
namespace {

// Threads cut a run anywhere: an element must not be rounded otherwise in a vector than at the end.
TEST(Elementwise, RoundsToBf16AlikeWhereverAnElementLies) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::int64_t all = hwy::SupportedTargets();
  for (std::int64_t targets = all; targets != 0; targets &= targets - 1) {
    const std::int64_t target = targets & -targets;
    hwy::SetSupportedTargetsForTest(target);
    for (const float value : {1e-39f, -1e-45f, 1.00390625f, 1.01171875f, -3.14159f, 3.4e38f,
                              kInfinity, -kInfinity, std::nanf("")}) {
      const std::vector<float> x(67, value);
      std::vector<BF16> y(x.size());
      convert(x.data(), y.data(), 67);
      for (const BF16 element : y) EXPECT_EQ(element.bits, y[0].bits) << value;
      if (std::abs(value) >= 1e-37f) {
        EXPECT_EQ(y[0].bits, BF16(value).bits) << value << " " << hwy::TargetName(target);
      }
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace
}  // namespace concord::cpu

// Checks gradient rules against central differences in double precision.
#pragma once

#include <functional>
#include <vector>

#include "concord/graph/builder.h"
#include "concord/kernels/ref/reference.h"

namespace concord::ref {

struct GradientCheck {
  // What the op is applied to: differentiable inputs, filled with normal draws unless given.
  std::vector<Shape> shapes;
  // Builds the function under test from those inputs and returns its output (any shape).
  std::function<ValueId(GraphBuilder&, const std::vector<ValueId>&)> build;
  // Further bindings that `build` needs, such as labels.
  Bindings fixed = {};
  double step = 1e-4;
  // Largest |analytic - numeric| / max(1, |numeric|) that is accepted.
  double tolerance = 1e-6;
  std::uint64_t seed = 1;
};

// The loss is the output's elements weighted by fixed normal draws, so that every element of the
// Jacobian counts. Returns a description of the worst element beyond the tolerance, or "".
std::string check_gradients(const GradientCheck& check);

}  // namespace concord::ref

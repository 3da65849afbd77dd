// Small helpers that shape and gradient rules share.
#pragma once

#include <span>

#include "concord/base/error.h"
#include "concord/graph/builder.h"
#include "concord/graph/op.h"

namespace concord::ops {

// Throws Error unless the op has this many inputs; a graph built through ops/ always does.
inline void expect_inputs(std::span<const TensorType> inputs, std::size_t count) {
  if (inputs.size() != count) fail("expected {} inputs, given {}", count, inputs.size());
}

// Throws Error unless `type` is floating point.
inline void expect_floating(const TensorType& type, std::string_view what) {
  if (!is_floating(type.dtype)) fail("{} must be floating point, given {}", what, to_string(type));
}

}  // namespace concord::ops

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

// Throws Error unless both have the same element type and shape.
inline void expect_same(const TensorType& a, const TensorType& b) {
  if (a != b) fail("given {} and {}; expected the same type twice", to_string(a), to_string(b));
}

// Throws Error unless `type` is a single f32 number.
inline void expect_scalar(const TensorType& type, std::string_view what) {
  if (type != TensorType{DType::kF32, {}})
    fail("{} must be f32[], given {}", what, to_string(type));
}

// Throws Error unless `type` is a single i64 number, known when the graph runs.
inline void expect_position(const TensorType& type, std::string_view what) {
  if (type != TensorType{DType::kI64, {}})
    fail("{} must be i64[], given {}", what, to_string(type));
}

// `dim`, counted from the end where it is negative, as a dim of `shape`. Throws Error where there
// is no such dim.
inline int checked_dim(const Shape& shape, std::int64_t dim) {
  const std::int64_t from_start = dim < 0 ? dim + shape.rank() : dim;
  if (from_start < 0 || from_start >= shape.rank()) fail("{} has no dim {}", to_string(shape), dim);
  return static_cast<int>(from_start);
}

// The element type in which elements of `dtype` are added up.
inline DType sum_type(DType dtype) { return dtype == DType::kBF16 ? DType::kF32 : dtype; }

// Of an op that computes in the type of its first `inputs` inputs.
constexpr Bf16Form follows_bf16(int inputs = 1) {
  return {.use = Bf16Form::Use::kFollows, .inputs = (1u << inputs) - 1};
}

// The element type of this name. Throws Error where there is none.
inline DType dtype_named(const std::string& name) {
  for (const DType dtype :
       {DType::kF32, DType::kF64, DType::kBF16, DType::kI32, DType::kI64, DType::kU8}) {
    if (to_string(dtype) == name) return dtype;
  }
  fail("there is no element type \"{}\"", name);
}

}  // namespace concord::ops

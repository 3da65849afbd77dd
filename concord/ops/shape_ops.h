// Ops that move elements and compute nothing. Element types are free unless said otherwise.
#pragma once

#include <vector>

#include "concord/graph/builder.h"

namespace concord::ops {

// The same elements, in row-major order, in another shape. One extent of `shape` may be -1: it is
// what the other extents leave.
ValueId reshape(GraphBuilder& builder, ValueId x, Shape shape);

// Dim i of the result is dim permutation[i] of x.
ValueId transpose(GraphBuilder& builder, ValueId x, const std::vector<std::int64_t>& permutation);

// The values one after the other along `dim`; the other dims are equal.
ValueId concat(GraphBuilder& builder, const std::vector<ValueId>& values, std::int64_t dim);

// Indices [begin, end) of `dim`.
ValueId slice(GraphBuilder& builder, ValueId x, std::int64_t dim, std::int64_t begin,
              std::int64_t end);

// x cut along `dim` into one value for each of `extents`, which fill the dim: the reverse of
// concat, and cheaper to differentiate than as many slices.
std::vector<ValueId> split(GraphBuilder& builder, ValueId x, std::int64_t dim,
                           const std::vector<std::int64_t>& extents);

// The gradient of slice: x at [begin, begin + its extent) of `dim`, zeros elsewhere up to `extent`.
ValueId pad_slice(GraphBuilder& builder, ValueId x, std::int64_t dim, std::int64_t begin,
                  std::int64_t extent);

// Indices [start, start + extent) of `dim`, where `start`, i64 [], is known when the graph runs; it
// stops with an Error where they do not lie in the dim. Neither this nor the next op has a
// gradient.
ValueId dynamic_slice(GraphBuilder& builder, ValueId x, ValueId start, std::int64_t dim,
                      std::int64_t extent);

// x with `part` in place of as many indices of `dim`, from `start` on: the reverse of
// dynamic_slice.
ValueId dynamic_update_slice(GraphBuilder& builder, ValueId x, ValueId part, ValueId start,
                             std::int64_t dim);

// For kernels: throws Error unless `count` indices from `start` on lie within `extent`.
void expect_inside(std::int64_t start, std::int64_t count, std::int64_t extent);

// x as another element type: rounded to nearest even between floating types, towards zero from
// floating to integer types, where a number outside the type's range gives no particular one.
// Differentiable between floating types.
ValueId cast(GraphBuilder& builder, ValueId x, DType dtype);

}  // namespace concord::ops

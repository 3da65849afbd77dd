// Rows picked by index, and the table of embeddings. Elements of x are of any type; differentiable
// where they are floating.
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

// The vectors `ids` ([...], i32) name: row id of `table` ([V, C]) for each, [..., C]. An id outside
// [0, V) gives NaN, and nothing to the table's gradient.
ValueId embedding(GraphBuilder& builder, ValueId table, ValueId ids);

// Dim `dim` of x replaced by the dims of `indices` (i32), as ONNX's Gather has it: of each index,
// what x holds there. A negative index counts from the end. An index outside of the dim gives NaN,
// in an integer type no particular number.
ValueId gather(GraphBuilder& builder, ValueId x, ValueId indices, std::int64_t dim);

}  // namespace concord::ops

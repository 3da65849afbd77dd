// Labels of tokens, of which some may be missing: a negative label is none.
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

inline constexpr std::int32_t kNoLabel = -1;

// Both i32 [N count].
struct LabelledRows {
  ValueId rows;    // in what is [N T, ...]
  ValueId labels;  // theirs
};

// Of labels [N, T] (i32) the first `count` of each sample, in order, and where they are: so that
// logits need be computed there alone. A sample with fewer has its first row and kNoLabel in place
// of the others. Not differentiable.
LabelledRows labelled_rows(GraphBuilder& builder, ValueId labels, std::int64_t count);

}  // namespace concord::ops

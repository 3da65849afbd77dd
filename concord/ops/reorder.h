// Reorder: the same values in another memory layout. The layout pass inserts it where the layouts
// that two kernels wish for differ.
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

ValueId reorder(GraphBuilder& builder, ValueId x);

}  // namespace concord::ops

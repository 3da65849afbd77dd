// Activation functions, element by element. Each names its function f; its backward op computes
// dL/dx = dL/dy * f'(x) from whatever is cheapest to keep (y where f' can be written with it).
#pragma once

#include "concord/graph/builder.h"

namespace concord::ops {

ValueId relu(GraphBuilder& builder, ValueId x);  // max(x, 0)

}  // namespace concord::ops

// Takes apart the nodes that compute many things side by side, such as one update of all parameters
// (graph/op.h, Op::separate): so that each of them can be placed for itself.
#pragma once

#include "concord/graph/graph.h"

namespace concord::parallel {

Graph separate(const Graph& graph);

}  // namespace concord::parallel

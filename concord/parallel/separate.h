// Takes apart the nodes that compute many things side by side, such as one update of all parameters
// (graph/op.h, Op::separate): so that each of them can be placed for itself.
#pragma once

#include "concord/graph/graph.h"

namespace concord::parallel {

// `sums_too`: sums over several values as well, which then are rounded before they are added up.
Graph separate(const Graph& graph, bool sums_too = true);

}  // namespace concord::parallel

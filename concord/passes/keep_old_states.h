#pragma once

#include "concord/graph/graph.h"

namespace concord {

// Copies each state whose old value is wanted after the step has given it a new one: where it is an
// output, or the next value of another state. So two states may swap, and a state may hold what
// another was a step ago.
Graph keep_old_states(const Graph& graph);

}  // namespace concord

// Removes nodes that no output and no next state depends on.
#pragma once

#include "concord/graph/graph.h"

namespace concord {

Graph remove_dead_code(const Graph& graph);

}  // namespace concord

// Assigns a layout to every value (layout_choice.h) and inserts `reorder` nodes where a value is
// wanted in another layout than it is made in, one for each layout wanted. A reorder that depends
// on states alone falls into the prologue phase (graph.h) and so runs once per step; gradients are
// reordered behind their leaf_sum, which is also once per step.
#pragma once

#include "concord/graph/graph.h"
#include "concord/passes/layout_choice.h"

namespace concord {

Graph assign_layouts(const Graph& graph, const LayoutOracle& oracle,
                     const LayoutOptions& layouts = {});

}  // namespace concord

// Assigns a layout to every value and inserts `reorder` nodes where a producer and a consumer
// differ.
//
// Nodes are visited in order. Each is offered the layouts its inputs have and answers with the ones
// it wants (kernels/kernel.h, LayoutWish). A state takes the layout of its first consumer, so
// weights live in the layout of the forward kernel. A reorder of a value is made once for each
// layout wanted. A reorder that depends on states alone falls into the prologue phase (graph.h) and
// so runs once per step; gradients are reordered behind their leaf_sum, which is also once per
// step.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "concord/graph/graph.h"

namespace concord {

struct NodeLayouts {
  std::vector<Layout> inputs;
  std::vector<Layout> outputs;
};

// Asks the backend for a node's layouts; a nullopt input is a state whose layout is still free.
using LayoutOracle = std::function<NodeLayouts(const Graph&, const Node&,
                                               std::span<const std::optional<Layout>> inputs)>;

// Layouts fixed beforehand by another program over the same states and the same sums.
struct PinnedLayouts {
  std::map<std::string, Layout> states;          // by name
  std::optional<std::vector<Layout>> leaf_sums;  // in order of the leaf_sum nodes
};

Graph assign_layouts(const Graph& graph, const LayoutOracle& oracle,
                     const PinnedLayouts& pinned = {});

}  // namespace concord

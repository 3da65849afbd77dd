// Chooses the layouts in which a graph's values are made and read, so that reorders cost least.
//
// Vocabulary. A node *wants* its inputs in certain layouts and makes its outputs in certain
// layouts; which ones, it answers to an *offer*: the layouts in which its inputs could come. A
// value is reordered once for each layout, other than the one it is made in, in which anybody wants
// it.
//
// First a walk in order, which offers each node what its inputs have; a state takes the layout of
// its first reader, so weights live in the layout of the forward kernel. Where that leaves
// reorders, a local search follows: whoever stands beside a reorder takes another layout, and its
// neighbours follow one by one, as far as that saves bytes. It ends where no such move saves any;
// on 2,994 of 3,000 random graphs that was the least of all choices (layout_choice_test.cc).
//
// Every reorder counts once, in whatever phase (graph.h) it falls. Only at a leaf_sum can one be
// moved from what runs for each microbatch to what runs once a step; the walk puts it there.
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
  friend bool operator==(const NodeLayouts&, const NodeLayouts&) = default;
};

// Asks the backend for a node's layouts; a nullopt input is a state whose layout is still free.
using LayoutOracle = std::function<NodeLayouts(const Graph&, const Node&,
                                               std::span<const std::optional<Layout>> inputs)>;

// Layouts fixed beforehand by another program over the same states and the same sums.
struct PinnedLayouts {
  std::map<std::string, Layout> states;          // by name
  std::optional<std::vector<Layout>> leaf_sums;  // in order of the leaf_sum nodes
};

struct LayoutChoice {
  std::vector<NodeLayouts> nodes;  // by node
  std::vector<Layout> values;      // by value: the layout it is made in
  std::size_t reordered_bytes;     // read and written
};

LayoutChoice choose_layouts(const Graph& graph, const LayoutOracle& oracle,
                            const PinnedLayouts& pinned);

}  // namespace concord

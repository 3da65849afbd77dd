// Chooses the layouts in which a graph's values are made and read, so that reorders cost least.
//
// Vocabulary. A node *wants* its inputs in certain layouts and makes its outputs in certain
// layouts; which ones, it answers to an *offer*: the layouts in which its inputs could come. A
// value is reordered once for each layout, other than the one it is made in, in which anybody wants
// it.
//
// First a walk in order, which offers each node what its inputs have; a state takes the layout of
// its first reader, so weights live in the layout of the forward kernel. (A cast takes any layout:
// a state that is read through casts takes that of its gradient, which comes in f32.) Where that
// leaves reorders, a local search follows: whoever stands beside a reorder takes another layout,
// and its neighbours follow one by one, as far as that saves bytes. It ends where no such move
// saves any; on 2,995 of 3,000 random graphs that was the least of all choices
// (layout_choice_test.cc).
//
// A reorder counts as often as it runs in a step: once for each microbatch, or once where it
// depends on states alone or on sums over leaves (the phases of graph.h).
#pragma once

#include <cstdint>
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

struct LayoutOptions {
  // Layouts fixed beforehand by another program over the same states and the same sums.
  std::map<std::string, Layout> states;          // by name
  std::optional<std::vector<Layout>> leaf_sums;  // in order of the leaf_sum nodes
  std::int64_t microbatches = 1;                 // of a step
};

struct LayoutChoice {
  std::vector<NodeLayouts> nodes;  // by node
  std::vector<Layout> values;      // by value: the layout it is made in
  std::size_t reordered_bytes;     // read and written in a step
};

LayoutChoice choose_layouts(const Graph& graph, const LayoutOracle& oracle,
                            const LayoutOptions& pinned);

}  // namespace concord

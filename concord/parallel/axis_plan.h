// AxisPlan: how the ranks along one axis of the mesh divide a graph: a placement for every state, a
// signature for every node. It is data: chosen by cost, printed, saved as the placements of the
// states, and applied.
//
// The cost of a plan is the time that one rank would need if nothing overlapped: of each node, for
// its share of the operations or of the bytes, whichever takes longer; and of each value that is
// produced under one placement and read under another, for the bytes that change it
// (ops/collective.h). The cheapest plan is found exactly (parallel/elimination.h).
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "concord/graph/graph.h"
#include "concord/graph/mesh.h"
#include "concord/graph/op.h"

namespace concord::parallel {

// What the cost of a plan is counted in. The figures are part of the plan's choice, so they are the
// same on every machine unless given.
struct MachineCost {
  double flops_per_second = 1e11;
  double memory_bytes_per_second = 1e10;
  double link_bytes_per_second = 5e9;
  double seconds_per_collective = 2e-5;
  double seconds_per_op = 2e-6;  // of one that is added to move numbers
};

struct AxisPlan {
  std::vector<PlacementSignature> nodes;  // by node
  std::vector<Placement> states;          // by state
  // Values that lie otherwise and are made whole once, for all who want them otherwise than they
  // lie.
  std::vector<ValueId> gathered = {};
  double seconds = 0;    // what it costs
  bool is_exact = true;  // no other costs less
};

struct AxisOptions {
  MachineCost machine;
  // Placements that states have, by name: of another graph of the same model, or by wish
  // (`pins_are_wishes`). Throws Error, which says what would be allowed, where a wish is one that
  // no signature has.
  std::map<std::string, Placement> pinned_states = {};
  bool pins_are_wishes = true;
  // Placements of what the leaf_sum nodes return, in their order: those of the program with which
  // this graph takes part in steps. Empty: free.
  std::vector<Placement> sums = {};
  bool may_split_sums = true;  // candidates.h
};

AxisPlan choose_plan(const Graph& graph, std::string_view axis, int ranks,
                     const AxisOptions& options = {});

// The graph of one rank: every value of it is what the rank holds. Where a node wants a value under
// another placement than it has, the node that changes it is added before the first that wants it.
// What is gathered, or what anyone wants whole, is made whole first, and cut for the others: in
// whichever order they come.
Graph apply_plan(const Graph& graph, const AxisPlan& plan, const AxisPlace& axis);

// Of what the leaf_sum nodes return, in their order.
std::vector<Placement> placements_of_sums(const Graph& graph, const AxisPlan& plan);

// Throws Error naming the first node whose signature no rule offers: the plan is wrong.
void check_plan(const Graph& graph, const AxisPlan& plan, int ranks);

}  // namespace concord::parallel

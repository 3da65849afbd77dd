// Candidates: all signatures in which the nodes of a graph could be computed along an axis that
// divides the tensors of a microbatch ("tensor").
//
// Rules are asked until nothing new comes out: a split by sections that one op offers (attention,
// of the heads of queries, keys and values) is offered to its neighbours, who may compute with it
// as well. No candidate splits samples: these are what the axis "data" divides.
#pragma once

#include <vector>

#include "concord/graph/graph.h"
#include "concord/graph/op.h"

namespace concord::parallel {

struct Candidates {
  std::vector<std::vector<PlacementSignature>> nodes;  // the first replicates everything
  std::vector<std::vector<Placement>> states;          // by state; the first is Replicate
};

// `may_split_sums`: also where ranks add up summands of the same numbers. Where not, every number
// is computed whole by one rank, or by each.
Candidates find_candidates(const Graph& graph, int ranks, bool may_split_sums = true);

// Whether the state is a weight of two dims or more that products or embeddings read: of these a
// rank is to hold a part.
bool is_divided_weight(const Graph& graph, const State& state);

// Along which split each value has the samples of a microbatch one after the other: the split that
// the batch inputs' dim 0 becomes. Replicate where it has none.
std::vector<Placement> sample_splits(const Graph& graph);

// The signatures that a node's rule offers, all of whose operands their splits divide.
std::vector<PlacementSignature> offered_signatures(
    const Graph& graph, const Node& node, int ranks,
    const std::vector<std::vector<Placement>>& known_splits);

}  // namespace concord::parallel

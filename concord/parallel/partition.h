// The partitioner along the axis `data`: from the graph of a step to that of one rank, which is the
// same on all of them. (Along `tensor`: plan.h.)
//
// A rank computes some of the batch's leaves: what belongs to a microbatch is split
// over them, what is computed before is replicated. A leaf_sum, or a leaf_total, makes a summand of
// it, Partial. Every other op, and whoever reads the graph's outputs and next states, takes its
// inputs replicated or, all of them that are not replicated, split over leaves. So an all_reduce
// comes behind each of those.
#pragma once

#include <vector>

#include "concord/graph/graph.h"
#include "concord/graph/mesh.h"
#include "concord/graph/placement.h"

namespace concord::parallel {

Graph partition(Graph graph, const Mesh& mesh);

// The placement of each value of a partitioned graph along `data`. Throws Error, naming the node
// and its input, where an op takes an input that is not placed as it wants it.
std::vector<Placement> placements_along_data(const Graph& graph);

}  // namespace concord::parallel

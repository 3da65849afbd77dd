// The partitioner: from the graph of a step to the graph of one rank of a mesh, which is the same
// on all ranks. Each value gets a placement along each axis; wherever one is produced in another
// placement than it is wanted in, a collective is put between.
//
// Along `data`, a rank computes some of the batch's leaves: what belongs to a microbatch is split
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

// Throws Error for an axis that is not known: one but `data`.
Graph partition(Graph graph, const Mesh& mesh);

// The placement of each value of a partitioned graph along `data`. Throws Error, naming the node
// and its input, where an op takes an input that is not placed as it wants it.
std::vector<Placement> placements_along_data(const Graph& graph);

}  // namespace concord::parallel

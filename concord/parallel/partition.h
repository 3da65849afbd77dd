// The partitioner along the axis `data`: from the graph of a step to that of one rank. (Along
// `tensor`: plan.h.)
//
// A rank computes some of the batch's leaves: what belongs to a microbatch is split over them, what
// is computed before is replicated. A leaf_sum, or a leaf_total, makes a summand of it, Partial.
// Whoever reads that takes it replicated, so that an all_reduce comes before; or flat
// (Placement::kFlat), where it is an update that the ranks share: then a reduce_scatter comes
// before, and an all_gather behind, of the parameters.
//
// What they share is said by the stage of ZeRO (S. Rajbhandari, J. Rasley, O. Ruwase, Y. He, "ZeRO:
// memory optimizations toward training trillion parameter models", 2020): from 1 on the optimizer's
// states, at 3 the parameters too. Stage 2, where a rank keeps no more of the summed gradients than
// its part, has the graph of stage 1: it is a matter of when their memory is free. Ranks that see
// each other's memory share updates at any stage, since there it costs nothing.
#pragma once

#include <vector>

#include "concord/graph/graph.h"
#include "concord/graph/placement.h"
#include "concord/parallel/plan.h"

namespace concord::parallel {

// The first graph that updates states decides which of them are shared, the others of the same
// model follow it. `graph`: with layouts, if it is to have some. Throws Error where plan.zero asks
// for the states of an update that needs all of them.
Graph partition(const Graph& graph, Plan& plan, int rank);

// The placement of each value of a partitioned graph along `data`. Throws Error, naming the node
// and its input, where an op takes an input that is not placed as it wants it.
std::vector<Placement> placements_along_data(const Graph& graph);

}  // namespace concord::parallel

// Collectives: ops by which the ranks along an axis of the mesh change what they hold of a tensor
// (graph/placement.h). They are put into a graph by the partitioner (parallel/partition.h).
#pragma once

#include <string_view>

#include "concord/graph/builder.h"

namespace concord::ops {

// From Partial to Replicate: the sum over the ranks, along the canonical tree over leaves.
inline constexpr std::string_view kAllReduce = "all_reduce";

}  // namespace concord::ops

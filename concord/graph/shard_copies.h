// Copies between a whole tensor and one rank's part of it.
#pragma once

#include <vector>

#include "concord/graph/placement.h"
#include "concord/tensor/block_copy.h"

namespace concord {

// From the whole tensor, row-major, to what rank `index` of so many has of it: one copy of each
// section. The split divides the tensor.
std::vector<BlockCopy> shard_copies(const TensorType& whole, const Placement& split, int ranks,
                                    int index);

// The other way round.
BlockCopy reversed(const BlockCopy& copy);

}  // namespace concord

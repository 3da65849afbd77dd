// Placement rules of the ops in ops/normalization.cc (graph/op.h).
#pragma once

#include <vector>

#include "concord/ops/placement_rules.h"

namespace concord::ops {

// Rows are normalised one by one: layer_norm, rms_norm and their gradients.
Signatures placed_row_norm(const PlacementContext& context);
Signatures placed_row_norm_backward(const PlacementContext& context);

// Groups of channels, and samples: group_norm and its gradient.
Signatures placed_group_norm(const PlacementContext& context);
Signatures placed_group_norm_backward(const PlacementContext& context);
std::vector<ValueId> localize_group_norm(LocalContext& context);

// Ops on tensors [N, C] or [N, C, H, W] and vectors of channels: each channel by itself and, with
// given statistics, each element; where they are summed up, the sums are Partial.
Signatures placed_by_channel(const PlacementContext& context);
Signatures placed_channel_sums(const PlacementContext& context);

// Each channel by itself; or any other dim, where the ranks put their statistics together.
Signatures placed_batch_norm(const PlacementContext& context);
Signatures placed_batch_norm_backward(const PlacementContext& context);
std::vector<ValueId> localize_batch_norm(LocalContext& context);
std::vector<ValueId> localize_batch_norm_backward(LocalContext& context);

}  // namespace concord::ops

// Placement rules of attention and its gradient (graph/op.h): by samples, by heads, as Megatron-LM
// does (Shoeybi et al. 2019, section 3), and by sequence.
//
// By heads, a rank that has a share of the heads of keys and values has all heads of queries that
// share them. By sequence, each rank has the queries of some positions, one after the other, and
// needs the keys and values of all or, where it is causal, those up to its last query: they are
// gathered, and their gradients are summed and scattered. The last rank then has the most to do.
#pragma once

#include <vector>

#include "concord/ops/placement_rules.h"

namespace concord::ops {

Signatures placed_attention(const PlacementContext& context);
Signatures placed_attention_backward(const PlacementContext& context);
std::vector<ValueId> localize_attention(LocalContext& context);
std::vector<ValueId> localize_attention_backward(LocalContext& context);

}  // namespace concord::ops

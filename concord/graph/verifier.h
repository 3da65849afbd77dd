// The verifier: checks that a graph is well formed. Run after every pass.
#pragma once

#include "concord/graph/graph.h"

namespace concord {

// Throws Error naming the first node or value at fault when: an id is out of range; a value has no
// origin or two; nodes are not in topological order; an op is unknown; an output's type differs
// from what the shape rule gives; a state's `next` differs from it in type or layout; names of
// inputs, states or outputs repeat; an update-phase node reads a microbatch-phase value without a
// leaf_sum; an output or a next state belongs to a single microbatch where `leaf_sum`s exist in the
// graph.
void verify(const Graph& graph);

}  // namespace concord

// The verifier: checks that a graph is well formed. Run after every pass.
#pragma once

#include "concord/graph/graph.h"

namespace concord {

// Throws Error naming the first node or value at fault when: an id is out of range; a value has no
// origin or two; nodes are not in topological order; an op is unknown; an output's type differs
// from what the shape rule gives; a state's `next` differs from it in type or layout; names of
// inputs, states or outputs repeat; a leaf_sum reads what no node computes in a microbatch; another
// update-phase node reads a microbatch-phase value; a next state belongs to a single microbatch; or
// an output does where the graph has leaf_sums.
//
// Allowed are, besides what a node computes: a state, itself, or a step input as the next value of
// a state; one value as the next of several states; a state or an input as an output, which is then
// the value from before the step; and inputs that nothing reads.
void verify(const Graph& graph);

}  // namespace concord

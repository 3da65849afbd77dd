// What kind of step a node becomes, for the compiler.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "concord/graph/graph.h"
#include "concord/kernels/kernel.h"
#include "concord/runtime/program.h"
#include "concord/runtime/state_store.h"

namespace concord {

// Those of the nodes, where what is computed from states for the microbatch alone belongs to it.
std::vector<Phase> phases_of_single_microbatch(const Graph& graph);

// Where a state lies.
Region region_of(const StateStore::Entry& state);

// What runs no kernel: sums over leaves, and of these over the ranks along data, are the
// executor's (leaf_sums.h); so are other collectives, which are steps (collective_step.h), and
// messages.
bool has_kernel(const Node& node);

// Of a send or a receive, but for its bytes.
MessageStep make_message_step(const Node& node);

// What the time that a node takes depends on: its op, attributes, and what goes in and out.
std::string kind_of(const Graph& graph, const Node& node);

// Ends a step: a next state that could not be computed in place is copied over the old one.
std::unique_ptr<Kernel> copy_of(std::size_t bytes);

}  // namespace concord

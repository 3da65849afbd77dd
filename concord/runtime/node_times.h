// How long nodes of a graph take on this machine, each run by itself, before the program that will
// run them is compiled.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "concord/graph/graph.h"
#include "concord/kernels/kernel.h"

namespace concord {

// Seconds of each; nullopt of those that run no kernel. `graph`: with layouts. Those of one kind,
// that is with the same op, attributes, shapes and layouts, are timed once; all kinds take turns,
// and the fastest run of each counts, so that what disturbs the machine for a moment decides
// nothing. Runs kernels on zeros, in memory for the largest of them.
std::vector<std::optional<double>> time_nodes(const Graph& graph,
                                              std::span<const std::size_t> nodes,
                                              KernelPolicy& policy);

}  // namespace concord

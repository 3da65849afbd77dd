// Traffic: what a rank sends in a step, from its graph: the collectives, and the bytes of each.
#pragma once

#include <string>
#include <vector>

#include "concord/graph/graph.h"

namespace concord::parallel {

struct Traffic {
  std::string op;     // "all_reduce"
  std::string axis;   // "tensor"
  std::string layer;  // "h.0.attn.c_proj"
  Phase phase = Phase::kMicrobatch;
  double bytes = 0;  // sent by this rank, each time (ops::bytes_sent)
};

// In the order of the nodes.
std::vector<Traffic> traffic_of(const Graph& graph);

}  // namespace concord::parallel

// Traffic: what a rank sends in a step, from its graph: the collectives and messages, and the bytes
// of each.
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
  NodeId node = kNoNode;
  // It adds up over ranks what their leaves have added up: with the sums of a step, or of each
  // round of leaves (runtime/round_sums.h).
  bool is_of_leaf_sum = false;
};

// In the order of the nodes.
std::vector<Traffic> traffic_of(const Graph& graph);

}  // namespace concord::parallel

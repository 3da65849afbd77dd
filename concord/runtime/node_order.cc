#include "concord/runtime/node_order.h"

#include <algorithm>
#include <utility>

#include "concord/base/error.h"

namespace concord {

NodeOrder::NodeOrder(const Graph& graph, std::vector<Phase> phase, int halves)
    : phase_(std::move(phase)), time_of_(phase_.size()) {
  for (const Phase wanted : {Phase::kPrologue, Phase::kMicrobatch, Phase::kUpdate}) {
    const bool is_microbatch = wanted == Phase::kMicrobatch;
    if (is_microbatch) begin_of_microbatch_ = end();
    for (int half = 0; half < (is_microbatch ? halves : 1); ++half) {
      for (std::size_t n = 0; n < phase_.size(); ++n) {
        const bool is_of_half = !is_microbatch || halves == 1 || graph.nodes[n].half == half;
        if (phase_[n] == wanted && is_of_half) order_.push_back(static_cast<NodeId>(n));
      }
      if (is_microbatch) half_ends_.push_back(end() - 1);
    }
  }
  CONCORD_CHECK(order_.size() == phase_.size(), "a node is of no half");
  for (int time = 0; time < end(); ++time) {
    time_of_[static_cast<std::size_t>(node_at(time))] = time;
  }
}

int NodeOrder::half_at(int time) const {
  return static_cast<int>(std::ranges::lower_bound(half_ends_, time) - half_ends_.begin());
}

bool NodeOrder::begins_part(int time) const {
  return time == begin_of_microbatch_ || std::ranges::count(half_ends_, time - 1) > 0;
}

}  // namespace concord

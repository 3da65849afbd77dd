// NodeOrder: when each node of a graph is run. *Time* is the index of a node in the order of
// execution: prologue, the halves of a microbatch one after another, update.
#pragma once

#include <vector>

#include "concord/graph/graph.h"

namespace concord {

class NodeOrder {
 public:
  // `phase`: by node; a microbatch has so many halves.
  NodeOrder(const Graph& graph, std::vector<Phase> phase, int halves);

  int end() const { return static_cast<int>(order_.size()); }
  NodeId node_at(int time) const { return order_[static_cast<std::size_t>(time)]; }
  int time_of(NodeId node) const { return time_of_[static_cast<std::size_t>(node)]; }
  Phase phase_of(NodeId node) const { return phase_[static_cast<std::size_t>(node)]; }
  Phase phase_at(int time) const { return phase_of(node_at(time)); }
  // The first and the last time of all microbatches, and of a half.
  int begin_of_microbatch() const { return begin_of_microbatch_; }
  int end_of_microbatch() const { return half_ends_.back(); }
  int begin_of_half(int half) const {
    return half == 0 ? begin_of_microbatch_ : end_of_half(half - 1) + 1;
  }
  int end_of_half(int half) const { return half_ends_[static_cast<std::size_t>(half)]; }
  int half_at(int time) const;
  // Whether another part of a step begins there.
  bool begins_part(int time) const;

 private:
  std::vector<Phase> phase_;   // by node
  std::vector<NodeId> order_;  // by time
  std::vector<int> time_of_;   // by node
  int begin_of_microbatch_ = 0;
  std::vector<int> half_ends_;
};

}  // namespace concord

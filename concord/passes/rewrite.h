// Rewriter: copies a graph node by node into a new one, so that a pass can drop, replace or insert
// nodes while value ids and topological order stay right. Inputs and states are copied first.
#pragma once

#include <vector>

#include "concord/graph/graph.h"

namespace concord {

class Rewriter {
 public:
  // Copies the inputs and states of `source`, which must outlive the rewriter.
  explicit Rewriter(const Graph& source);

  // The new id of an old value. Broken invariant when it was dropped.
  ValueId operator[](ValueId old_value) const;
  bool has(ValueId old_value) const {
    return map_[static_cast<std::size_t>(old_value)] != kNoValue;
  }
  // From now on `old_value` means `new_value`.
  void map(ValueId old_value, ValueId new_value);

  // Appends a copy of an old node with its inputs mapped, and maps its outputs.
  void copy(const Node& old_node);
  // Appends a node given in new ids; its outputs are new values of these types. Returns their ids.
  std::vector<ValueId> add(Node node, const std::vector<Value>& outputs);

  Graph& graph() { return result_; }
  // Maps outputs and next states and returns the new graph.
  Graph finish();

 private:
  const Graph& source_;
  Graph result_;
  std::vector<ValueId> map_;
};

}  // namespace concord

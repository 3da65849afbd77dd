#include "concord/comm/leaf_tree.h"

#include "concord/base/error.h"

namespace concord::comm {

std::vector<Subtree> subtrees_of(std::int64_t begin, std::int64_t end) {
  std::vector<Subtree> nodes;
  for (std::int64_t leaf = begin; leaf < end; ++leaf) {
    nodes.push_back({0, leaf});
    join_halves(nodes, [&] { nodes.pop_back(); });
  }
  return nodes;
}

void Joins::join_last_two() {
  const Entry right = stack_.back();
  stack_.pop_back();
  joins_.push_back({stack_.back().place, right.place});
}

std::span<const Join> Joins::of(std::span<const Subtree> nodes) {
  stack_.clear();
  joins_.clear();
  std::int64_t next = 0;  // leaf
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const Subtree& node = nodes[i];
    CONCORD_CHECK(node.index << node.height == next, "a gap before leaf {}", next);
    next = (node.index + 1) << node.height;
    stack_.push_back({node, i});
    join_halves(stack_, [this] { join_last_two(); });
  }
  while (stack_.size() >= 2) join_last_two();
  return joins_;
}

}  // namespace concord::comm

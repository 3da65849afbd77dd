// The canonical binary tree over the leaves of a step (docs/architecture.md, idea 2), along which
// whatever the leaves contribute is added up: which of its nodes a run of leaves makes up, and in
// which order they are joined.
//
// Leaves are taken in order. As soon as both halves of a node are there they are joined, as the
// ones of a binary counter carry; what is left at the end, where the number of leaves is no power
// of two, is joined from the right. The order depends on the number of leaves alone, so a sum has
// the same bits however the leaves lie on ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace concord::comm {

// A node: leaves [index << height, (index + 1) << height).
struct Subtree {
  int height = 0;
  std::int64_t index = 0;
  friend bool operator==(const Subtree&, const Subtree&) = default;
};

// Whether they are the halves of a node, in this order.
constexpr bool are_halves(const Subtree& left, const Subtree& right) {
  return left.height == right.height && left.index % 2 == 0 && right.index == left.index + 1;
}
// The node of which `half` is one.
constexpr Subtree whole_of(const Subtree& half) { return {half.height + 1, half.index / 2}; }

inline constexpr int kMostHeight = 62;

// The end of a stack of nodes, or of things with a `node`: as long as the last two are halves, the
// last is taken off by join_last_two() and the one before becomes the whole, of at most this
// height.
constexpr Subtree& node_of(Subtree& node) { return node; }
template <typename Entry>
constexpr Subtree& node_of(Entry& entry) {
  return entry.node;
}
template <typename Entry, typename JoinLastTwo>
void join_halves(std::vector<Entry>& stack, JoinLastTwo join_last_two,
                 int most_height = kMostHeight) {
  while (stack.size() >= 2 && node_of(stack.back()).height < most_height &&
         are_halves(node_of(stack[stack.size() - 2]), node_of(stack.back()))) {
    join_last_two();
    node_of(stack.back()) = whole_of(node_of(stack.back()));
  }
}

// What is left of leaves [begin, end) after joining halves: the fewest nodes that make them up, in
// order; at most 2 log2(end - begin).
std::vector<Subtree> subtrees_of(std::int64_t begin, std::int64_t end);

// One addition: the value at `into` becomes that at `into` plus that at `from`.
struct Join {
  std::size_t into = 0, from = 0;
  friend bool operator==(const Join&, const Join&) = default;
};

// The additions, in order, by which nodes that lie side by side and make up all leaves from the
// first on become one sum, at 0. Allocates only where there are more nodes than ever before.
class Joins {
 public:
  // Valid until the next call.
  std::span<const Join> of(std::span<const Subtree> nodes);

 private:
  struct Entry {
    Subtree node;
    std::size_t place;
  };
  void join_last_two();

  std::vector<Entry> stack_;
  std::vector<Join> joins_;
};

}  // namespace concord::comm

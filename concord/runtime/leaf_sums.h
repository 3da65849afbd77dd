// LeafSums: adds up what the leaves of a step contribute, along the canonical binary tree.
//
// Leaves arrive in order. The sums of complete subtrees wait in a stack, as the ones of a binary
// counter: leaf i completes one subtree for each trailing one of i, so at most log2(leaves) + 1
// buffers are in use. Within a leaf, microbatches are added in order. The tree's shape depends on
// the number of leaves alone, so the sum has the same bits however leaves are cut into microbatches
// per call or spread over ranks.
#pragma once

#include <cstddef>
#include <vector>

#include "concord/tensor/buffer.h"

namespace concord {

class LeafSums {
 public:
  // `bytes`: of one contribution, all f32, a multiple of 64.
  explicit LeafSums(std::size_t bytes) : bytes_(bytes) {}

  // Starts a step.
  void clear();
  // Where the next microbatch writes its contribution.
  std::byte* next();
  // The microbatch has written it. `first_of_leaf`: it begins a leaf; otherwise it continues one.
  void add(bool first_of_leaf);
  // The leaf is complete: subtrees that are now complete are joined.
  void finish_leaf();
  // All leaves are in: joins what is left, from the right, and returns the sum, which stays valid
  // until the next clear(). At least one leaf must have been added.
  std::byte* finish();

 private:
  void join(std::size_t into, std::size_t from);
  std::size_t take_buffer();

  std::size_t bytes_;
  std::vector<Buffer> buffers_;
  std::vector<std::size_t> free_;
  std::vector<std::size_t>
      stack_;                    // buffers of complete subtrees; the last may be a leaf in progress
  std::vector<int> heights_;     // of those subtrees
  std::size_t pending_ = kNone;  // buffer handed out by next()
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
};

}  // namespace concord

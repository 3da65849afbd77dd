// LeafSums: adds up what the leaves of a step contribute, along the canonical binary tree
// (comm/leaf_tree.h), this rank's and then those of all ranks.
//
// A rank's leaves arrive in order. The sums of complete subtrees wait in a stack, as the ones of a
// binary counter: a leaf completes one subtree for each trailing one of its index, so at most about
// twice log2(leaves) buffers are in use, and log2(leaves) + 1 where the leaves are an aligned
// block. Within a leaf, microbatches are added in order.
#pragma once

#include <cstddef>
#include <vector>

#include "concord/comm/communicator.h"

namespace concord {

class LeafSums {
 public:
  // `bytes`: of one contribution, all f32, a multiple of 64. `buffers`: the most that are in use at
  // once (buffers_for); a rank that is alone makes them as they are needed.
  LeafSums(std::size_t bytes, comm::Communicator& ranks, std::size_t buffers)
      : bytes_(bytes), ranks_(ranks), buffers_(buffers) {}

  // The most buffers that leaves [begin, end) use at once; `parts`: a leaf comes in several.
  static std::size_t buffers_for(std::int64_t begin, std::int64_t end, bool parts);

  // Starts a step, in which this rank's leaves are those from `first_leaf` on. Collective when it
  // is called first.
  void clear(std::int64_t first_leaf);
  // Where the next microbatch writes its contribution.
  std::byte* next();
  // The microbatch has written it. `first_of_leaf`: it begins a leaf; otherwise it continues one.
  void add(bool first_of_leaf);
  // The leaf is complete: subtrees that are now complete are joined.
  void finish_leaf();
  // Collective. All leaves are in: returns the sum over those of all ranks, to be read until the
  // next clear().
  const std::byte* finish();

 private:
  void share_buffers();
  void join_last_two();
  std::byte* take_buffer();

  std::size_t bytes_;
  comm::Communicator& ranks_;
  std::size_t buffers_;
  std::vector<std::byte*> free_, all_;
  std::vector<comm::Part> stack_;  // the last may be a leaf in progress
  std::int64_t next_leaf_ = 0;
  std::byte* pending_ = nullptr;  // buffer handed out by next()
};

}  // namespace concord

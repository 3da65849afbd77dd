// LeafSums: adds up what the leaves of a step contribute, along the canonical binary tree
// (comm/leaf_tree.h), this rank's and then those of all ranks.
//
// A rank's leaves arrive in order. The sums of complete subtrees wait in a stack, as the ones of a
// binary counter: a leaf completes one subtree for each trailing one of its index, so at most about
// twice log2(leaves) buffers are in use, and log2(leaves) + 1 where the leaves are an aligned
// block. Within a leaf, microbatches are added in order. What a microbatch contributes is added up
// bucket by bucket, as soon as a bucket is complete; the buckets of a rank's last microbatch go on
// to the other ranks at once.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "concord/comm/communicator.h"

namespace concord {

// Bytes [offset, offset + bytes) of a contribution.
struct Bucket {
  std::size_t offset = 0;
  std::size_t bytes = 0;
  comm::Label label;  // what is in it
};

// Which microbatch it is, of those that a rank computes in a step.
struct MicrobatchPlace {
  bool first_of_leaf = true;
  bool last_of_leaf = true;
  bool last_of_step = false;
};

class LeafSums {
 public:
  // `bytes`: of one contribution, all f32, a multiple of 64. `buffers`: the most that are in use at
  // once (buffers_for); a rank that is alone makes them as they are needed.
  LeafSums(std::size_t bytes, comm::Communicator& ranks, std::size_t buffers)
      : bytes_(bytes), ranks_(ranks), buffers_(buffers) {}
  // Waits for sums that were begun: they read and write what is this one's.
  ~LeafSums();
  LeafSums(const LeafSums&) = delete;
  LeafSums& operator=(const LeafSums&) = delete;

  // The most buffers that leaves [begin, end) use at once; `parts`: a leaf comes in several.
  static std::size_t buffers_for(std::int64_t begin, std::int64_t end, bool parts);

  // Collective: shares the buffers, which other ranks read.
  void share();
  // Starts a step, in which this rank's leaves are those from `first_leaf` on. Collective when it
  // is called first, unless share() was. Nobody may be reading the sum of the step before.
  void clear(std::int64_t first_leaf);
  // Where the next microbatch writes its contribution.
  std::byte* next();
  // A microbatch is computed there. Its buckets are added in any order, each when it is complete.
  void begin_microbatch(const MicrobatchPlace& place);
  void add(const Bucket& bucket);
  void end_microbatch();
  // Whether sums over ranks were begun. Where the step has ended before this rank's leaves, they
  // are not: begin() begins them, with nothing of this rank, and so does finish().
  bool has_begun() const { return !sums_.empty(); }
  void begin(const Bucket& bucket) { start_sum(bucket); }
  // Of the sums that were begun, those of which it is not known yet: waits for them. A communicator
  // remembers its last operations alone, so that who has others done in the middle of a step calls
  // this after each.
  void settle();
  // Collective. All leaves are in: returns the sum over those of all ranks (comm::tree_sum says
  // until when it can be read). `buckets`: all there are, the same on every rank.
  const std::byte* finish(std::span<const Bucket> buckets);

 private:
  struct Join {
    std::byte* into;
    const std::byte* from;
  };
  struct Started {
    std::size_t offset;
    comm::Ticket ticket;
  };

  void join_last_two();
  void start_sum(const Bucket& bucket);
  std::byte* take_buffer();

  std::size_t bytes_;
  comm::Communicator& ranks_;
  std::size_t buffers_;
  std::vector<std::byte*> free_, all_;
  std::vector<comm::Part> stack_;  // the last may be a leaf in progress
  std::int64_t next_leaf_ = 0;
  std::byte* pending_ = nullptr;     // buffer handed out by next()
  std::vector<Join> joins_;          // of this microbatch
  std::vector<std::byte*> emptied_;  // by them
  bool last_of_step_ = false;
  std::vector<Started> sums_;
  std::size_t settled_ = 0;         // of these
  const std::byte* sum_ = nullptr;  // where those lie
};

}  // namespace concord

// LeafSums: the sums of a step (step_sums.h), this rank's leaves first and then those of all ranks.
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

#include "concord/runtime/step_sums.h"

namespace concord {

class LeafSums final : public StepSums {
 public:
  // `bytes`: of one contribution, all f32, a multiple of 64. `buffers`: the most that are in use at
  // once (buffers_for); a rank that is alone makes them as they are needed. `most_height`: of nodes
  // that a rank adds up by itself; where sums are encoded, an encoder's (comm/encoded_sum.h).
  LeafSums(std::size_t bytes, comm::Communicator& ranks, std::size_t buffers,
           int most_height = comm::kMostHeight)
      : bytes_(bytes), ranks_(ranks), buffers_(buffers), most_height_(most_height) {}
  // Waits for sums that were begun: they read and write what is this one's.
  ~LeafSums() override;
  LeafSums(const LeafSums&) = delete;
  LeafSums& operator=(const LeafSums&) = delete;

  // The most buffers that leaves [begin, end) use at once; `parts`: a leaf comes in several.
  static std::size_t buffers_for(std::int64_t begin, std::int64_t end, bool parts,
                                 int most_height = comm::kMostHeight);

  std::size_t bytes() const override { return buffers_ * bytes_; }
  void share() override;
  void clear(const StepPlace& place) override;
  std::byte* next() override;
  void begin_microbatch(const MicrobatchPlace& place) override;
  void add(const Bucket& bucket) override;
  void end_microbatch() override;
  // Where the step has ended before this rank's leaves, no sum over ranks was begun.
  bool awaits_others() const override { return sums_.empty(); }
  void begin_standing_by() override {}
  void stand_by(const Bucket& bucket) override { start_sum(bucket); }
  void settle() override;
  const std::byte* finish(std::span<const Bucket> buckets) override;
  const std::byte* parts() const override { return own(); }

 private:
  struct Join {
    std::byte* into;
    const std::byte* from;
  };
  struct Started {
    std::size_t offset;
    comm::Ticket ticket;
    bool is_whole;  // or in parts
  };

  std::byte* own() const { return stack_.empty() ? all_[0] : stack_[0].data; }
  void join_last_two();
  void join_encoders();
  void start_sum(const Bucket& bucket);
  std::byte* take_buffer();

  std::size_t bytes_;
  comm::Communicator& ranks_;
  std::size_t buffers_;
  int most_height_;
  std::int64_t step_ = 0;
  std::vector<std::byte*> free_, all_;
  std::vector<comm::Part> stack_;  // the last may be a leaf in progress
  // What is not encoded is joined further, bucket by bucket, before it goes to the others.
  std::vector<comm::Part> joined_;
  std::vector<Join> last_joins_;
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

// RoundSums: the sums of a step (step_sums.h) of ranks that keep no more of them than their parts.
//
// The ranks along data, a power of two, compute neighbouring leaves at the same time: rank r of N
// the leaves r, r + N, and so on, each in one microbatch. After each such round the contributions
// are added up over the ranks, bucket by bucket, and each rank gets its parts and what it needs all
// of: the sum of one node of the canonical tree. These wait in a stack for their neighbours, as the
// subtrees of LeafSums do. What the microbatch has written is free again as soon as its bucket is
// summed.
#pragma once

#include <cstddef>
#include <vector>

#include "concord/runtime/step_sums.h"

namespace concord {

class RoundSums final : public StepSums {
 public:
  struct Sizes {
    std::size_t bytes = 0;         // of what a microbatch writes
    std::size_t totals_bytes = 0;  // of what a rank gets: first what it gets all of, where it
                                   // was written, then its parts
    std::int64_t rounds = 1;       // the most of a step
  };
  RoundSums(const Sizes& sizes, comm::Communicator& ranks);
  ~RoundSums() override;

  std::size_t bytes() const override { return sizes_.bytes + depth() * sizes_.totals_bytes; }
  void share() override;
  void clear(const StepPlace& place) override;
  std::byte* next() override { return contribution_; }
  void begin_microbatch(const MicrobatchPlace& place) override;
  void add(const Bucket& bucket) override { start(bucket); }
  void end_microbatch() override;
  bool awaits_others() const override { return round_ < rounds_; }
  void begin_standing_by() override;
  void stand_by(const Bucket& bucket) override { start(bucket); }
  void settle() override;
  const std::byte* finish(std::span<const Bucket> buckets) override;
  const std::byte* parts() const override { return stack_[0].data; }

 private:
  std::size_t depth() const;  // of the stack, with the round's own totals
  void begin_round(bool contributes);
  void start(const Bucket& bucket);
  void join_last_two();

  Sizes sizes_;
  comm::Communicator& ranks_;
  std::byte* contribution_ = nullptr;
  std::vector<Buffer> totals_;
  std::vector<std::byte*> free_;
  std::vector<comm::Part> stack_;  // of nodes over whole rounds
  std::vector<comm::Part> own_;    // what this rank gives in the round: one part or none
  std::int64_t round_ = 0, rounds_ = 0;
  std::byte* out_ = nullptr;  // totals of the round
  // The sum that was begun last.
  comm::Ticket ticket_ = 0;  // 0: it is done
  const Bucket* bucket_ = nullptr;
};

}  // namespace concord

// StepSums: what the leaves of a step contribute, added up over leaves and ranks along the
// canonical binary tree (comm/leaf_tree.h). LeafSums adds up a rank's leaves first, and then those
// of all ranks; RoundSums the ranks' first.
//
//   sums.clear(place);                       once in a step
//   sums.next();                             where the next microbatch writes its contribution
//   sums.begin_microbatch(place);
//   sums.add(bucket);                        each of its buckets, when that is complete
//   sums.end_microbatch();
//   while (sums.awaits_others()) {           the others go on, and this rank has nothing to add
//     sums.begin_standing_by(); sums.stand_by(bucket); ... sums.end_microbatch();
//   }
//   sums.finish(buckets);
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "concord/comm/communicator.h"
#include "concord/comm/encoded_sum.h"

namespace concord {

// Bytes [offset, offset + bytes) of a contribution, or the pieces in it.
struct Bucket {
  std::size_t offset = 0;
  std::size_t bytes = 0;
  comm::Label label;  // what is in it
  // Where each rank gets a part of the sum: of the sums in the bucket, each for itself.
  std::vector<comm::Piece> pieces = {};
  // Of Program::sums, those that are encoded: all in the bucket, or none. How, the executor knows.
  std::vector<std::size_t> encoded = {};
  comm::EncodedSum* coding = nullptr;
};

// Which microbatch it is, of those that a rank computes in a step.
struct MicrobatchPlace {
  bool first_of_leaf = true;
  bool last_of_leaf = true;
  bool last_of_step = false;
};

struct StepPlace {
  std::int64_t step = 0;        // what random numbers of encodings depend on
  std::int64_t first_leaf = 0;  // of this rank
  std::int64_t rounds = 1;      // RoundSums: of the step
};

class StepSums {
 public:
  virtual ~StepSums() = default;

  // Of memory for sums, of which ranks that are alone may use less.
  virtual std::size_t bytes() const = 0;
  // Collective: makes the memory, and shares what other ranks read.
  virtual void share() = 0;
  // Starts a step. Collective when it is called first, unless share() was. Nobody may be reading
  // the sum of the step before.
  virtual void clear(const StepPlace& place) = 0;
  virtual std::byte* next() = 0;
  virtual void begin_microbatch(const MicrobatchPlace& place) = 0;
  virtual void add(const Bucket& bucket) = 0;
  virtual void end_microbatch() = 0;
  virtual bool awaits_others() const = 0;
  virtual void begin_standing_by() = 0;
  virtual void stand_by(const Bucket& bucket) = 0;
  // Of the sums over ranks that were begun, those of which it is not known yet: waits for them. A
  // communicator remembers its last operations alone, so that who has others done in the middle of
  // a step calls this after each.
  virtual void settle() = 0;
  // Collective. All leaves are in: returns the sum over those of all ranks (comm::tree_sum says
  // until when it can be read). `buckets`: all there are, the same on every rank.
  virtual const std::byte* finish(std::span<const Bucket> buckets) = 0;
  // After that: where the parts of sums lie that each rank gets for itself.
  virtual const std::byte* parts() const = 0;
};

}  // namespace concord

// EncodedSum: a sum over leaves of which encodings are sent in the place of numbers.
//
// Vocabulary. The leaves of a step are divided into runs of equal length, an *encoder* for each,
// and every rank has equally many of them. An encoder takes the sum over its leaves, a node of the
// canonical tree (leaf_tree.h), with what it has kept of the steps before. What comes out depends
// on leaves and encoders alone, and not on which rank has which of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "concord/comm/operation.h"

namespace concord::comm {

class EncodedSum : public Rounds {
 public:
  struct Encoders {
    int rank = 0, ranks = 1;
    std::int64_t count = 1;  // of all ranks, a multiple of them
    int height = 0;          // of an encoder's node of the tree
    std::uint64_t seed = 0;  // of random numbers
    std::int64_t own() const { return count / ranks; }
  };
  // Where what is kept of a tensor lies, arrays of numbers: `own`, of this rank's encoders one
  // after another; `of_sum`, of the sum.
  struct Memory {
    std::vector<float*> own, of_sum;
  };

  // By tensor: where it lies from here on.
  std::span<Memory> memories() { return memories_; }
  // For an operation, which ends before the next is begun: of these parts, the sum goes to `out`,
  // which may be one of them.
  void begin(std::span<const Part> parts, std::int64_t step, std::byte* out);
  // Of memory for what is encoded, sent and received.
  virtual std::size_t bytes() const = 0;

 protected:
  EncodedSum(const Encoders& encoders, std::size_t tensors);

  virtual void restart() = 0;
  const Encoders& encoders() const { return encoders_; }
  std::int64_t step() const { return step_; }
  float* out(std::size_t offset) const { return reinterpret_cast<float*>(out_ + offset); }
  // Adds up the nodes that an encoder's leaves are where a step ends among them: `count` numbers
  // from `offset` bytes on.
  void join_leaves(std::size_t offset, std::int64_t count) const;
  // After that, of one of this rank's encoders; null where the step has ended before its leaves.
  const float* values_of(std::int64_t own_encoder, std::size_t offset) const;

 private:
  Encoders encoders_;
  std::vector<Memory> memories_;
  std::vector<std::vector<Part>> parts_;  // by encoder of this rank
  std::int64_t step_ = 0;
  std::byte* out_ = nullptr;
};

}  // namespace concord::comm

// Communicator: what the ranks of a job do together. It is passed to whoever needs it; there is no
// global one. Alone, a rank is a job of size 1, for which everything here is the identity.
//
// Collective calls are made by every rank, in the same order. Each ends, on every rank, in its
// result or in a RankError that names the rank that did not take part, what was asked and in which
// step: a rank that has ended, is stopped, calls something else, or gave up (abort). Any other
// Error is of this rank alone, which then calls abort(). After either a communicator is of no use.
// Used by one thread of the rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/error.h"
#include "concord/comm/leaf_tree.h"
#include "concord/tensor/buffer.h"

namespace concord::comm {

// A call that came to nothing because of another rank.
class RankError : public Error {
 public:
  using Error::Error;
};

// What a rank adds to a tree sum: the sum over the leaves of a node, in memory of share().
struct Part {
  Subtree node;
  std::byte* data = nullptr;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool is_first() const { return rank_ == 0; }

  // Named in errors from here on.
  void set_step(std::int64_t step) { step_ = step; }

  // Collective. Memory of this rank, zero-initialised, that tree_sum can read in the other ranks
  // too. `bytes` may differ from rank to rank. It lives as long as the communicator.
  virtual std::byte* share(std::size_t bytes) = 0;
  // Collective. Adds what all ranks give along the canonical tree (leaf_tree.h). Their nodes, rank
  // after rank, lie side by side and make up all leaves from the first on; a rank may give none.
  // Parts are f32, of `bytes` each. Returns the sum, the same bits on every rank, to be read until
  // the next tree_sum. Parts may be changed by it, and afterwards by their rank.
  virtual const std::byte* tree_sum(std::span<const Part> parts, std::size_t bytes) = 0;
  // Collective. The bitwise or of what the ranks give.
  virtual std::uint32_t any_of(std::uint32_t flags) = 0;
  // Collective. What rank 0 gives.
  virtual std::string broadcast(const std::string& value) = 0;

  // Not collective: the calls that the other ranks are in, or make next, end in a RankError that
  // says this.
  virtual void abort(std::string_view reason) = 0;

 protected:
  Communicator(int rank, int size) : rank_(rank), size_(size) {}
  std::int64_t step() const { return step_; }

 private:
  int rank_, size_;
  std::int64_t step_ = 0;
};

// A job of one rank.
class Alone final : public Communicator {
 public:
  Alone() : Communicator(0, 1) {}
  std::byte* share(std::size_t bytes) override;
  const std::byte* tree_sum(std::span<const Part> parts, std::size_t bytes) override;
  std::uint32_t any_of(std::uint32_t flags) override { return flags; }
  std::string broadcast(const std::string& value) override { return value; }
  void abort(std::string_view) override {}

 private:
  std::vector<Buffer> buffers_;
  std::vector<Subtree> nodes_;
  Joins joins_;
};

// a += b: `bytes` of f32.
void add_floats(std::byte* a, const std::byte* b, std::size_t bytes);

}  // namespace concord::comm

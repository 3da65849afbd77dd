// Operation: one collective call, or one message between two ranks, as plain data. It is what a
// Communicator is asked to do, and what its flight recorder remembers.
//
// `bytes` counts what one rank gives, the same on every rank. Memory stays valid, and what is given
// unchanged, until the operation is done. What is given and what comes out do not overlap, but for
// an all-reduce and a maximum in place, and an all-gather whose `in` lies in its place of `out`.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "concord/comm/leaf_tree.h"

namespace concord::comm {

// What a rank adds to a tree sum: the sum over the leaves of a node, in memory of share().
struct Part {
  Subtree node;
  std::byte* data = nullptr;
};

// A tensor of a scattered sum, of which rank r gets bytes [r * part_bytes, (r + 1) * part_bytes).
struct Piece {
  std::size_t offset = 0;  // of the tensor, in each of the parts
  std::size_t part_bytes = 0;
  std::size_t out_offset = 0;  // where this rank's part of the sum goes
};

// What an operation is about, for people: "layer4.1.conv2.weight". Cut after 47 characters.
class Label {
 public:
  constexpr Label(std::string_view text = "") {
    std::copy_n(text.begin(), std::min(text.size(), text_.size() - 1), text_.begin());
  }
  constexpr Label(const char* text) : Label(std::string_view(text)) {}
  std::string_view text() const { return text_.data(); }

 private:
  std::array<char, 48> text_{};
};

class Rounds;

struct Operation {
  enum class Kind : std::uint8_t {
    kBarrier,
    kAgreement,      // the bitwise or of `flags`
    kTreeSum,        // of `parts`, along the canonical tree
    kTreeScatter,    // the same, of which rank r gets the r-th part of each of `pieces`
    kAllReduce,      // out = the sum over ranks of `in`, f32
    kMaximum,        // out = the largest over ranks of `in`, f32; NaN is larger than any number
    kReduceScatter,  // out = the r-th of N pieces, on rank r, of the sum over ranks of `in`
    kAllGather,      // out = `in` of all ranks, one after another
    kBroadcast,      // out = `in` of rank `peer`
    kAllToAll,       // the s-th of N pieces of out = the r-th of those of rank s's `in`, on rank r
    kGather,         // on rank `peer`, out = `in` of all ranks, one after another
    kSend,           // of `in`, to rank `peer`
    kReceive,        // into `out`, from rank `peer`
    kRounds,         // several operations, with what a rank computes between them
  };

  Kind kind = Kind::kBarrier;
  Label label;
  std::size_t bytes = 0;
  const std::byte* in = nullptr;
  std::byte* out = nullptr;
  std::size_t out_bytes = 0;  // that there is room for
  int peer = 0;
  std::uint32_t flags = 0;
  // Of a tree sum: `bytes` from `offset` on of each of the parts.
  std::span<const Part> parts = {};
  std::size_t offset = 0;
  std::span<const Piece> pieces = {};
  Rounds* rounds = nullptr;
};

// Operations that depend on what a rank computes from those before.
class Rounds {
 public:
  virtual ~Rounds() = default;
  // The next one, once the one before is done; nothing where that was the last. All ranks have the
  // same, which have the label of the whole.
  virtual std::optional<Operation> next() = 0;
};

// "all-reduce", and "all-reduce of fc.weight".
std::string_view name_of(Operation::Kind kind);
std::string name_of(Operation::Kind kind, const Label& label);

// Throws Error where it makes no sense for this rank of so many: pieces that are not equal, another
// size of what comes out, memory that overlaps, a rank that there is not.
void check_operation(const Operation& operation, int rank, int size);

// What ranks tell each other of the operation that they are in, to see that it is the same.
struct Call {
  Operation::Kind kind;
  std::int32_t peer;
  std::int64_t step;
  std::uint64_t bytes;
  Label label;
  Label axis;  // of the mesh, along which they are ranks; empty: all of the job
};
Call call_of(const Operation& operation, std::int64_t step, const Label& axis = {});
// "the sum of fc.weight of step 12", "the barrier of step 3 along tensor"
std::string described(const Call& call);
// What two ranks have to agree on and do not; "" where they do.
std::string disagreement(int rank, const Call& call, int other_rank, const Call& other);

// The f32 numbers from `offset` on in each part are added along the canonical tree (leaf_tree.h).
// The nodes of all ranks, rank after rank, lie side by side and make up all leaves from the first
// on; a rank may give none, and no two that are halves of a node. The sum, the same bits on every
// rank, lies at `out` or in a part of any rank: Result::sum tells. So it may be read until this
// rank begins the last barrier or agreement before its parts are written again, which may be when
// that is done.
Operation tree_sum(std::span<const Part> parts, std::size_t offset, std::size_t bytes,
                   std::byte* out, Label label = {});
// The same of `pieces`, `bytes` in all, where each rank gets its part of each, at that piece's
// place in `out`. This rank's part of a piece, which nobody else reads, may be where it goes.
Operation tree_scatter(std::span<const Part> parts, std::span<const Piece> pieces,
                       std::size_t bytes, std::byte* out, Label label = {});
Operation barrier(Label label = {});
Operation agreement(std::uint32_t flags, Label label = {});
// Added along the canonical tree over the ranks. `in` may be `out`.
Operation all_reduce(std::span<const float> in, std::span<float> out, Label label = {});
// The first of what is equal (0 and -0), in the order of the ranks, counts. `in` may be `out`.
Operation maximum(std::span<const float> in, std::span<float> out, Label label = {});
Operation reduce_scatter(std::span<const float> in, std::span<float> out, Label label = {});
Operation all_gather(std::span<const std::byte> in, std::span<std::byte> out, Label label = {});
Operation broadcast(std::span<std::byte> data, int root, Label label = {});
Operation all_to_all(std::span<const std::byte> in, std::span<std::byte> out, Label label = {});
Operation gather(std::span<const std::byte> in, std::span<std::byte> out, int root,
                 Label label = {});
// May wait until the receiver has it: two ranks that send to each other first wait in vain, until
// the deadline.
Operation send(std::span<const std::byte> in, int to, Label label = {});
Operation receive(std::span<std::byte> out, int from, Label label = {});
// They outlive the operation.
Operation in_rounds(Rounds& rounds, Label label = {});

}  // namespace concord::comm

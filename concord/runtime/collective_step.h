// A collective of a graph (ops/collective.h) as a step of a program: plain data, which says what is
// brought together for the other ranks, which operation they meet in, and where what comes out of
// it belongs. With the communicator of its axis it is run.
//
// Operands are row-major, but those of an all_reduce, which may have any layout in common. bf16 is
// moved as it is; sums of it are added in f32 and rounded once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "concord/base/share.h"
#include "concord/comm/communicator.h"
#include "concord/graph/graph.h"
#include "concord/tensor/block_copy.h"

namespace concord {

struct CollectiveStep {
  // From an operand to where the other ranks read, or from what they have written to the other
  // operand.
  using Copies = std::vector<BlockCopy>;

  std::string op, axis;
  comm::Label label;
  DType dtype = DType::kF32;
  bool maximum = false;
  int ranks = 0;                                   // along the axis; 0: any number
  std::int64_t in_elements = 0, out_elements = 0;  // stored
  // By rank, or for all alike; empty where the operand itself is read or written.
  std::vector<Copies> pack, unpack;
  // Of what is packed by a rank, and of what is there to be unpacked.
  std::size_t packed_bytes = 0, unpacked_bytes = 0;
  // Of halo ops: a tensor seen from its dim, in elements. The parts of neighbours have `before` and
  // `after` indices, and the rank itself `own`.
  std::int64_t rows = 1, inner = 1, before = 0, own = 0, after = 0;

  std::size_t in_bytes() const { return static_cast<std::size_t>(in_elements) * size_of(dtype); }
  std::size_t out_bytes() const { return static_cast<std::size_t>(out_elements) * size_of(dtype); }
  // What all ranks give, one after another.
  std::size_t gathered_bytes() const { return in_bytes() * static_cast<std::size_t>(ranks); }
  // Memory that it needs while it runs.
  std::size_t scratch_bytes() const;
};

// Of an operand's memory, in bytes.
struct OperandRange {
  std::size_t operand = 0;  // 0 input, 1 output, 2 scratch memory
  std::size_t offset = 0;
  std::size_t bytes = 0;
  friend bool operator==(const OperandRange&, const OperandRange&) = default;
};

// What a rank reads or writes of the operands of each other rank, where ranks see each other's
// memory. `own`: which of the ranks along the axis it is. Nothing of halos, nor of sums of doubles
// and integers: they are small and pass through the communicator's own memory.
std::vector<OperandRange> reached_of_others(const CollectiveStep& step, Share own);

// `lowered`: with layouts.
CollectiveStep make_collective_step(const Graph& lowered, const Node& node);

// Throws Error where it is for another number of ranks.
void check_ranks(const CollectiveStep& step, const comm::Communicator& ranks);

// Of a step that moves what the operands hold as it is, without scratch memory: the operation
// alone.
comm::Operation moving(const CollectiveStep& step, std::span<std::byte* const> operands);

// `operands`: input, output, and the scratch memory if any. Collective among the ranks of the axis.
// Nothing is allocated. Throws RankError.
void run(const CollectiveStep& step, comm::Communicator& ranks,
         std::span<std::byte* const> operands);

// What stands for its result where the other ranks are not asked: what this rank has, as often as
// there is room for it.
void run_alone(const CollectiveStep& step, std::span<std::byte* const> operands);

}  // namespace concord

#include "concord/runtime/collective_step.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "concord/base/error.h"
#include "concord/base/parallel.h"
#include "concord/graph/shard_copies.h"
#include "concord/ops/collective.h"

namespace concord {
namespace {

using Copies = CollectiveStep::Copies;

std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

bool is_of_few(DType dtype) { return dtype == DType::kF64 || dtype == DType::kI64; }

bool is_sum(const CollectiveStep& step) {
  return step.op == ops::kAllReduce || step.op == ops::kReduceScatter;
}

std::span<float> floats(std::byte* data, std::int64_t count) {
  return {reinterpret_cast<float*>(data), static_cast<std::size_t>(count)};
}

// A run of indices of a dim, and where they lie in a tensor that has parts of them one after
// another.
struct Run {
  std::int64_t begin, end, at;
};

// What rank `index` has of a dim.
std::vector<Run> runs_of(std::int64_t extent, const Placement& split, int ranks, int index) {
  std::vector<Run> runs;
  std::int64_t at = 0;
  for (const Range& range : ranges_of(extent, split, ranks, index)) {
    runs.push_back({range.begin, range.end, at});
    at += range.end - range.begin;
  }
  return runs;
}

// Between a tensor of type `whole`, split, and the parts of all ranks, one after another.
Copies cut(const TensorType& whole, const Placement& split, int ranks, bool to_pieces) {
  const auto piece = static_cast<std::int64_t>(whole.bytes()) / ranks;
  Copies copies;
  for (int r = 0; r < ranks; ++r) {
    for (BlockCopy copy : shard_copies(whole, split, ranks, r)) {
      copy.to += r * piece;
      copies.push_back(to_pieces ? copy : reversed(copy));
    }
  }
  return copies;
}

bool is_one_piece_each(const TensorType& whole, const Placement& split) {
  return AroundDim(whole, split.dim).rows == 1 && split.sections == std::vector<std::int64_t>{1};
}

// The indices that two ranks of splits of one dim have in common, in order: where they lie with
// each of them.
struct Shared {
  std::int64_t count, of_first, of_second;
};
std::vector<Shared> in_common(const std::vector<Run>& first, const std::vector<Run>& second) {
  std::vector<Shared> result;
  for (const Run& a : first) {
    for (const Run& b : second) {
      const std::int64_t begin = std::max(a.begin, b.begin), end = std::min(a.end, b.end);
      if (begin < end)
        result.push_back({end - begin, a.at + begin - a.begin, b.at + begin - b.begin});
    }
  }
  return result;
}

// Both splits cut one dim: what two ranks give each other depends on the ranks. Pieces have room
// for the longest.
void exchange_along_one_dim(CollectiveStep& step, const TensorType& part, const Placement& from,
                            const Placement& to) {
  const AroundDim own(part, from.dim);
  const std::int64_t extent = own.extent * step.ranks;
  std::vector<std::vector<Run>> before, after;
  for (int r = 0; r < step.ranks; ++r) {
    before.push_back(runs_of(extent, from, step.ranks, r));
    after.push_back(runs_of(extent, to, step.ranks, r));
  }
  std::int64_t most = 0;  // indices
  for (const auto& a : before) {
    for (const auto& b : after) {
      std::int64_t count = 0;
      for (const Shared& shared : in_common(a, b)) count += shared.count;
      most = std::max(most, count);
    }
  }
  const std::int64_t row = most * own.index_bytes, piece = own.rows * row;
  const auto copies = [&](const std::vector<Run>& mine, const std::vector<std::vector<Run>>& theirs,
                          bool to_pieces) {
    Copies result;
    for (std::size_t r = 0; r < theirs.size(); ++r) {
      std::int64_t at = static_cast<std::int64_t>(r) * piece;
      for (const Shared& shared :
           to_pieces ? in_common(mine, theirs[r]) : in_common(theirs[r], mine)) {
        const std::int64_t of_mine = to_pieces ? shared.of_first : shared.of_second;
        BlockCopy copy{.rows = own.rows,
                       .bytes = shared.count * own.index_bytes,
                       .from = of_mine * own.index_bytes,
                       .from_stride = own.bytes,
                       .to = at,
                       .to_stride = row};
        if (!to_pieces) {
          std::swap(copy.from, copy.to);
          std::swap(copy.from_stride, copy.to_stride);
        }
        result.push_back(copy);
        at += shared.count * own.index_bytes;
      }
    }
    return result;
  };
  for (std::size_t r = 0; r < before.size(); ++r) {
    step.pack.push_back(copies(before[r], after, /*to_pieces=*/true));
    step.unpack.push_back(copies(after[r], before, /*to_pieces=*/false));
  }
  step.packed_bytes = step.unpacked_bytes = static_cast<std::size_t>(piece * step.ranks);
}

void exchange(CollectiveStep& step, const TensorType& in, const TensorType& out,
              const Placement& from, const Placement& to) {
  if (from.dim == to.dim) return exchange_along_one_dim(step, in, from, to);
  if (!is_one_piece_each(in, to)) {
    step.pack = {cut(in, to, step.ranks, /*to_pieces=*/true)};
    step.packed_bytes = in.bytes();
  }
  if (!is_one_piece_each(out, from)) {
    step.unpack = {cut(out, from, step.ranks, /*to_pieces=*/false)};
    step.unpacked_bytes = out.bytes();
  }
}

const Copies& of_rank(const std::vector<Copies>& copies, int rank) {
  return copies[copies.size() == 1 ? 0 : static_cast<std::size_t>(rank)];
}

void copy_all(const Copies& copies, const std::byte* from, std::byte* to) {
  for (const BlockCopy& copy : copies) copy.run(from, to);
}

constexpr std::int64_t kGrain = 1 << 14;  // elements

void widen(const std::byte* from, std::span<float> to) {
  const auto* const source = reinterpret_cast<const BF16*>(from);
  parallel_for(std::ssize(to), kGrain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      to[static_cast<std::size_t>(i)] = static_cast<float>(source[i]);
    }
  });
}

void round_to(std::byte* to, std::span<const float> from) {
  auto* const rounded = reinterpret_cast<BF16*>(to);
  parallel_for(std::ssize(from), kGrain, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      rounded[i] = BF16(from[static_cast<std::size_t>(i)]);
    }
  });
}

// Of scratch memory, one piece after another.
class Scratch {
 public:
  explicit Scratch(std::span<std::byte* const> operands)
      : next_(operands.size() > 2 ? operands[2] : nullptr) {}
  std::byte* take(std::size_t bytes) {
    std::byte* const taken = next_;
    next_ += aligned(bytes);
    return taken;
  }

 private:
  std::byte* next_;
};

// Of doubles and integers, which are few: each rank adds up what all have, in their order.
template <typename T>
void sum_few(const CollectiveStep& step, comm::Communicator& ranks,
             std::span<std::byte* const> operands) {
  const auto count = static_cast<std::size_t>(step.in_elements);
  std::byte* const all = Scratch(operands).take(step.gathered_bytes());
  ranks.run(
      comm::all_gather({operands[0], step.in_bytes()}, {all, step.gathered_bytes()}, step.label));
  const auto* const given = reinterpret_cast<const T*>(all);
  auto* const sums = reinterpret_cast<T*>(operands[1]);
  for (std::size_t i = 0; i < count; ++i) {
    T sum = given[i];
    for (std::size_t r = 1; r < static_cast<std::size_t>(step.ranks); ++r) {
      sum += given[r * count + i];
    }
    sums[i] = sum;
  }
}

bool is_widened(const CollectiveStep& step) { return is_sum(step) && step.dtype == DType::kBF16; }

// What a rank brings together for the others: its input as it is, packed, or packed if need be and
// then widened.
OperandRange brought(const CollectiveStep& step) {
  if (is_widened(step)) {
    return {2, aligned(step.packed_bytes),
            static_cast<std::size_t>(step.in_elements) * sizeof(float)};
  }
  if (!step.pack.empty()) return {2, 0, step.packed_bytes};
  return {0, 0, step.in_bytes()};
}

// What of scratch memory lies behind that.
std::byte* behind(const OperandRange& range, std::span<std::byte* const> operands) {
  return operands[2] + (range.operand == 2 ? range.offset + aligned(range.bytes) : 0);
}

// The input, packed where it has to be.
std::byte* packed(const CollectiveStep& step, const comm::Communicator& ranks,
                  std::span<std::byte* const> operands) {
  if (step.pack.empty()) return operands[0];
  copy_all(of_rank(step.pack, ranks.rank()), operands[0], operands[2]);
  return operands[2];
}

void sum(const CollectiveStep& step, comm::Communicator& ranks,
         std::span<std::byte* const> operands) {
  if (step.dtype == DType::kF64) return sum_few<double>(step, ranks, operands);
  if (step.dtype == DType::kI64) return sum_few<std::int64_t>(step, ranks, operands);
  const OperandRange in = brought(step);
  const std::byte* const given = packed(step, ranks, operands);
  const std::span<float> summands = floats(operands[in.operand] + in.offset, step.in_elements);
  std::span<float> sums = floats(operands[1], step.out_elements);
  if (is_widened(step)) {
    widen(given, summands);
    sums = step.op == ops::kAllReduce ? summands : floats(behind(in, operands), step.out_elements);
  }
  if (step.op == ops::kReduceScatter) {
    ranks.run(comm::reduce_scatter(summands, sums, step.label));
  } else if (step.maximum) {
    ranks.run(comm::maximum(summands, sums, step.label));
  } else {
    ranks.run(comm::all_reduce(summands, sums, step.label));
  }
  if (is_widened(step)) round_to(operands[1], sums);
}

void move(const CollectiveStep& step, comm::Communicator& ranks,
          std::span<std::byte* const> operands) {
  const OperandRange given = brought(step);
  const std::span<std::byte> in{packed(step, ranks, operands), given.bytes};
  std::span<std::byte> out{operands[1], step.out_bytes()};
  if (!step.unpack.empty()) out = {behind(given, operands), step.unpacked_bytes};
  ranks.run(step.op == ops::kAllGather ? comm::all_gather(in, out, step.label)
                                       : comm::all_to_all(in, out, step.label));
  if (!step.unpack.empty()) {
    copy_all(of_rank(step.unpack, ranks.rank()), out.data(), operands[1]);
  }
}

// `count` indices of a dim.
std::size_t bytes_of_indices(const CollectiveStep& step, std::int64_t count) {
  return static_cast<std::size_t>(step.rows * step.inner * count) * size_of(step.dtype);
}

// Copies between tensors of so many indices along the dim, in bytes of one index.
BlockCopy copy_of_indices(const CollectiveStep& step, std::int64_t count, std::int64_t from,
                          std::int64_t from_extent, std::int64_t to, std::int64_t to_extent) {
  const auto index = step.inner * static_cast<std::int64_t>(size_of(step.dtype));
  return {step.rows,           count * index, from * index,
          from_extent * index, to * index,    to_extent * index};
}

// Neighbours give each other `to_left` and `to_right`, where they are there. Of every pair the left
// one sends first; the pairs whose left one is even go before the others, so that nobody waits for
// more than that.
void exchange_with_neighbours(const CollectiveStep& step, comm::Communicator& ranks,
                              std::span<const std::byte> to_left,
                              std::span<const std::byte> to_right, std::span<std::byte> from_left,
                              std::span<std::byte> from_right) {
  const int rank = ranks.rank();
  const auto send = [&](std::span<const std::byte> bytes, int to) {
    if (!bytes.empty()) ranks.run(comm::send(bytes, to, step.label));
  };
  const auto receive = [&](std::span<std::byte> bytes, int from) {
    if (!bytes.empty()) ranks.run(comm::receive(bytes, from, step.label));
  };
  for (const int parity : {0, 1}) {
    if (rank % 2 == parity) {  // the left one of a pair
      if (rank + 1 == ranks.size()) continue;
      send(to_right, rank + 1);
      receive(from_right, rank + 1);
    } else if (rank > 0) {
      receive(from_left, rank - 1);
      send(to_left, rank - 1);
    }
  }
}

struct Halo {
  std::span<std::byte> to_left, to_right, from_left, from_right;
};

// `left` and `right`: indices that a rank gives its neighbours.
Halo take_halo(const CollectiveStep& step, Scratch& scratch, std::int64_t left,
               std::int64_t right) {
  const auto take = [&](std::int64_t count) {
    const std::size_t bytes = bytes_of_indices(step, count);
    return std::span(scratch.take(bytes), bytes);
  };
  return {take(left), take(right), take(right), take(left)};
}

void exchange_halo(const CollectiveStep& step, comm::Communicator* ranks,
                   std::span<std::byte* const> operands) {
  Scratch scratch(operands);
  const Halo halo = take_halo(step, scratch, step.after, step.before);
  const std::int64_t own = step.own, all = step.before + own + step.after;
  const auto out_at = [&](std::int64_t count, std::int64_t to) {
    return copy_of_indices(step, count, 0, count, to, all);
  };
  out_at(own, step.before).run(operands[0], operands[1]);
  std::ranges::fill(halo.from_left, std::byte{0});
  std::ranges::fill(halo.from_right, std::byte{0});
  if (ranks != nullptr) {
    copy_of_indices(step, step.after, 0, own, 0, step.after).run(operands[0], halo.to_left.data());
    copy_of_indices(step, step.before, own - step.before, own, 0, step.before)
        .run(operands[0], halo.to_right.data());
    exchange_with_neighbours(step, *ranks, halo.to_left, halo.to_right, halo.from_left,
                             halo.from_right);
  }
  out_at(step.before, 0).run(halo.from_left.data(), operands[1]);
  out_at(step.after, step.before + own).run(halo.from_right.data(), operands[1]);
}

template <typename T>
void add_halo(const CollectiveStep& step, const Halo& halo, const std::byte* in, std::byte* out) {
  const std::int64_t inner = step.inner, own = step.own * inner;
  const std::int64_t before = step.before * inner, after = step.after * inner;
  parallel_for(
      step.rows, std::max<std::int64_t>(1, kGrain / own),
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
          const T* const x = reinterpret_cast<const T*>(in) + row * (before + own + after) + before;
          const T* const left = reinterpret_cast<const T*>(halo.from_left.data()) + row * after;
          const T* const right = reinterpret_cast<const T*>(halo.from_right.data()) + row * before;
          T* const y = reinterpret_cast<T*>(out) + row * own;
          for (std::int64_t i = 0; i < own; ++i) {
            auto sum = static_cast<float>(x[i]);
            if (i < after) sum += static_cast<float>(left[i]);
            if (i >= own - before) sum += static_cast<float>(right[i - own + before]);
            y[i] = T(sum);
          }
        }
      });
}

void sum_halo(const CollectiveStep& step, comm::Communicator* ranks,
              std::span<std::byte* const> operands) {
  Scratch scratch(operands);
  const Halo halo = take_halo(step, scratch, step.before, step.after);
  const std::int64_t all = step.before + step.own + step.after;
  std::ranges::fill(halo.from_left, std::byte{0});
  std::ranges::fill(halo.from_right, std::byte{0});
  if (ranks != nullptr) {
    copy_of_indices(step, step.before, 0, all, 0, step.before)
        .run(operands[0], halo.to_left.data());
    copy_of_indices(step, step.after, all - step.after, all, 0, step.after)
        .run(operands[0], halo.to_right.data());
    exchange_with_neighbours(step, *ranks, halo.to_left, halo.to_right, halo.from_left,
                             halo.from_right);
  }
  if (step.dtype == DType::kBF16) {
    add_halo<BF16>(step, halo, operands[0], operands[1]);
  } else {
    add_halo<float>(step, halo, operands[0], operands[1]);
  }
}

bool is_halo(const CollectiveStep& step) {
  return step.op == ops::kHaloExchange || step.op == ops::kHaloSum;
}

void add_geometry(CollectiveStep& step, const Node& node, const TensorType& in,
                  const TensorType& out) {
  if (node.op == ops::kReduceScatter) {
    const Placement split = ops::split_of(node);
    if (is_one_piece_each(in, split)) return;
    step.pack = {cut(in, split, step.ranks, /*to_pieces=*/true)};
    step.packed_bytes = in.bytes();
  } else if (node.op == ops::kAllGather) {
    const Placement split = ops::split_of(node);
    if (is_one_piece_each(out, split)) return;
    step.unpack = {cut(out, split, step.ranks, /*to_pieces=*/false)};
    step.unpacked_bytes = out.bytes();
  } else if (node.op == ops::kAllToAll) {
    exchange(step, in, out, ops::split_of(node), ops::second_split_of(node));
  } else if (is_halo(step)) {
    const auto dim = static_cast<int>(node.attributes.integer("dim"));
    step.before = node.attributes.integer("before");
    step.after = node.attributes.integer("after");
    step.own = std::min(in.shape[dim], out.shape[dim]);
    for (int d = 0; d < in.shape.rank(); ++d) {
      if (d != dim) (d < dim ? step.rows : step.inner) *= in.shape[d];
    }
  }
}

}  // namespace

std::size_t CollectiveStep::scratch_bytes() const {
  if (is_halo(*this)) {
    return 2 * (aligned(bytes_of_indices(*this, before)) + aligned(bytes_of_indices(*this, after)));
  }
  std::size_t bytes = aligned(packed_bytes) + aligned(unpacked_bytes);
  if (is_sum(*this) && is_of_few(dtype)) return aligned(gathered_bytes());
  if (is_sum(*this) && dtype == DType::kBF16) {
    bytes += aligned(static_cast<std::size_t>(in_elements) * sizeof(float));
    if (op == ops::kReduceScatter) {
      bytes += aligned(static_cast<std::size_t>(out_elements) * sizeof(float));
    }
  }
  return bytes;
}

std::vector<OperandRange> reached_of_others(const CollectiveStep& step, Share own) {
  const OperandRange in = brought(step);
  if (step.op == ops::kAllGather) return {in};
  if (step.op == ops::kReduceScatter || step.op == ops::kAllToAll) {
    const std::size_t piece = in.bytes / static_cast<std::size_t>(own.count);
    return {{in.operand, in.offset + piece * static_cast<std::size_t>(own.index), piece}};
  }
  if (step.op != ops::kAllReduce || is_of_few(step.dtype)) return {};
  // Each rank adds up its share and writes it to all.
  const auto [begin, end] = own.of(static_cast<std::int64_t>(in.bytes / sizeof(float)));
  OperandRange share = in;
  share.offset += static_cast<std::size_t>(begin) * sizeof(float);
  share.bytes = static_cast<std::size_t>(end - begin) * sizeof(float);
  if (is_widened(step)) return {share};  // the sums lie where the summands do
  return {share, {1, share.offset, share.bytes}};
}

CollectiveStep make_collective_step(const Graph& lowered, const Node& node) {
  const Value &in = lowered.value(node.inputs[0]), &out = lowered.value(node.outputs[0]);
  CollectiveStep step{.op = node.op,
                      .axis = node.attributes.text("axis"),
                      .label = comm::Label(node.name),
                      .dtype = in.type.dtype,
                      .maximum = node.attributes.has("maximum")};
  step.in_elements = in.layout.stored_elements(in.type.shape);
  step.out_elements = out.layout.stored_elements(out.type.shape);
  if (node.op == ops::kAllReduce) {
    CONCORD_CHECK(in.layout == out.layout, "{}", node.op);
    const bool has_ranks = node.attributes.has("ranks");
    CONCORD_CHECK(step.dtype == DType::kF32 || step.dtype == DType::kBF16 ||
                      (is_of_few(step.dtype) && has_ranks && !step.maximum),
                  "{} of {}", node.op, to_string(in.type));
    if (has_ranks) {
      step.ranks = static_cast<int>(node.attributes.integer("ranks"));
    }
    return step;
  }
  step.ranks = static_cast<int>(node.attributes.integer("ranks"));
  if (ops::is_flat(node)) {
    CONCORD_CHECK(node.op == ops::kAllGather, "flat {}", node.op);
    step.out_elements = step.in_elements * step.ranks;
    return step;
  }
  CONCORD_CHECK(in.layout.is_row_major() && out.layout.is_row_major(), "{}", node.op);
  add_geometry(step, node, in.type, out.type);
  return step;
}

void check_ranks(const CollectiveStep& step, const comm::Communicator& ranks) {
  if (step.ranks == 0 || step.ranks == ranks.size()) return;
  fail(
      "{} of {} along {} is for {} ranks, and {} are joined: expected the mesh that was compiled "
      "for",
      step.op, step.label.text(), step.axis, step.ranks, ranks.size());
}

comm::Operation moving(const CollectiveStep& step, std::span<std::byte* const> operands) {
  CONCORD_CHECK(step.op == ops::kAllGather && step.scratch_bytes() == 0, "{}", step.op);
  return comm::all_gather({operands[0], step.in_bytes()}, {operands[1], step.out_bytes()},
                          step.label);
}

void run(const CollectiveStep& step, comm::Communicator& ranks,
         std::span<std::byte* const> operands) {
  if (step.op == ops::kHaloExchange) return exchange_halo(step, &ranks, operands);
  if (step.op == ops::kHaloSum) return sum_halo(step, &ranks, operands);
  if (is_sum(step)) return sum(step, ranks, operands);
  move(step, ranks, operands);
}

void run_alone(const CollectiveStep& step, std::span<std::byte* const> operands) {
  if (step.op == ops::kHaloExchange) return exchange_halo(step, nullptr, operands);
  if (step.op == ops::kHaloSum) return sum_halo(step, nullptr, operands);
  const std::size_t in = step.in_bytes(), out = step.out_bytes();
  for (std::size_t at = 0; at < out; at += in) {
    std::memcpy(operands[1] + at, operands[0], std::min(in, out - at));
  }
}

}  // namespace concord

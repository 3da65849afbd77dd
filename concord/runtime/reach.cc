#include "concord/runtime/reach.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "concord/ops/collective.h"

namespace concord {
namespace {

using Reached = std::pair<std::size_t, std::size_t>;  // [first, second) of an arena

// The system maps so many bytes around one that is touched.
constexpr std::size_t kAround = std::size_t{64} << 10;

std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Of the memory that the other ranks are told of, where run(CollectiveStep) tells them of it.
void add_ranges(const ProgramStep& program_step, Share own, std::vector<Reached>& ranges) {
  const CollectiveStep& step = *program_step.collective;
  const auto size = static_cast<std::size_t>(own.count), rank = static_cast<std::size_t>(own.index);
  const bool sums = step.op == ops::kAllReduce || step.op == ops::kReduceScatter;
  const bool is_bf16 = sums && step.dtype == DType::kBF16;
  const auto add = [&](std::size_t operand, std::size_t offset, Reached range) {
    const Address& address = program_step.operands[operand];
    if (address.region != Region::kArena) return;
    const std::size_t at = address.offset + offset;
    ranges.emplace_back(at + range.first, at + range.second);
  };
  // What it brings: as it is, packed, or packed and widened.
  std::size_t bytes = step.in_bytes();
  if (is_bf16) bytes *= 2;
  const bool moved = is_bf16 || !step.pack.empty();
  const std::size_t operand = moved ? 2 : 0;
  const std::size_t offset = is_bf16 ? aligned(step.packed_bytes) : 0;
  if (step.op == ops::kAllGather) {
    add(operand, offset, {0, bytes});
  } else if (step.op == ops::kReduceScatter || step.op == ops::kAllToAll) {
    if (!step.pack.empty() && !is_bf16) bytes = step.packed_bytes;
    add(operand, offset, {bytes / size * rank, bytes / size * (rank + 1)});
  } else if (step.op == ops::kAllReduce && step.dtype != DType::kF64 && step.dtype != DType::kI64) {
    const auto [begin, end] = own.of(static_cast<std::int64_t>(bytes / sizeof(float)));
    const Reached share = {static_cast<std::size_t>(begin) * sizeof(float),
                           static_cast<std::size_t>(end) * sizeof(float)};
    add(operand, offset, share);
    add(is_bf16 ? 2 : 1, offset, share);
  }
}

}  // namespace

std::size_t reached_bytes(std::span<const Program* const> programs, std::string_view axis,
                          Share own) {
  std::vector<Reached> ranges;
  for (const Program* program : programs) {
    for (const auto* steps : {&program->microbatch, &program->update}) {
      for (const ProgramStep& step : *steps) {
        if (step.collective && step.collective->axis == axis) add_ranges(step, own, ranges);
      }
    }
  }
  for (auto& [begin, end] : ranges) {
    begin = begin / kAround * kAround;
    end = (end + kAround - 1) / kAround * kAround;
  }
  std::ranges::sort(ranges);
  std::size_t bytes = 0, counted = 0;  // the latter: up to where
  for (const auto& [begin, end] : ranges) {
    const std::size_t from = std::max(begin, counted);
    if (end > from) bytes += end - from;
    counted = std::max(counted, end);
  }
  return bytes * static_cast<std::size_t>(own.count - 1);
}

}  // namespace concord

#include "concord/runtime/reach.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "concord/runtime/collective_step.h"

namespace concord {
namespace {

using Reached = std::pair<std::size_t, std::size_t>;  // [first, second) of an arena

// The system maps so many bytes around one that is touched.
constexpr std::size_t kAround = std::size_t{64} << 10;

void add_ranges(const ProgramStep& step, Share own, std::vector<Reached>& ranges) {
  for (const OperandRange& range : reached_of_others(*step.collective, own)) {
    const Address& address = step.operands[range.operand];
    if (address.region != Region::kArena) continue;
    const std::size_t begin = address.offset + range.offset;
    ranges.emplace_back(begin, begin + range.bytes);
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

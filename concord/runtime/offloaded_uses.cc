#include "concord/runtime/offloaded_uses.h"

#include <algorithm>

#include "concord/tensor/relayout.h"

namespace concord {
namespace {

using Used = OffloadedUse::Range;

// The values behind a step's operands, which a scratchpad may follow.
std::vector<ValueId> values_of(const Program& program, const ProgramStep& step) {
  const Node& node = program.graph.node(step.node);
  std::vector<ValueId> values = node.inputs;
  if (step.collective) values.resize(1);
  values.insert(values.end(), node.outputs.begin(), node.outputs.end());
  return values;
}

std::vector<Used> ranges_of(const Program& program, const ProgramStep& step) {
  std::vector<ValueId> values;
  if (step.node != kNoNode) values = values_of(program, step);
  std::vector<Used> ranges;
  for (std::size_t o = 0; o < step.operands.size(); ++o) {
    const Address& address = step.operands[o];
    if (address.region != Region::kOffloaded) continue;
    std::size_t bytes = step.bytes / 2;  // of a copy
    if (step.node != kNoNode) {
      const Value& value = program.graph.value(values[o]);
      bytes = stored_bytes(value.type, value.layout);
    }
    ranges.push_back({address.offset, bytes});
  }
  std::ranges::sort(ranges);
  return ranges;
}

// Where they overlap, or follow each other but for less than a page, they are one.
std::vector<Used> merged(const std::vector<Used>& ranges) {
  constexpr std::size_t kPage = 4096;
  std::vector<Used> result;
  for (const Used& range : ranges) {
    if (!result.empty() && range.offset < result.back().offset + result.back().bytes + kPage) {
      Used& last = result.back();
      last.bytes = std::max(last.bytes, range.offset + range.bytes - last.offset);
    } else {
      result.push_back(range);
    }
  }
  return result;
}

}  // namespace

std::vector<OffloadedUse> offloaded_uses(const Program& program) {
  std::vector<OffloadedUse> uses;
  for (std::size_t s = 0; s < program.update.size(); ++s) {
    std::vector<Used> ranges = merged(ranges_of(program, program.update[s]));
    if (!ranges.empty()) uses.push_back({s, std::move(ranges)});
  }
  return uses;
}

}  // namespace concord

#include "concord/runtime/offload.h"

#include <algorithm>
#include <utility>

#include "concord/tensor/relayout.h"

namespace concord {
namespace {

// Below, the calls cost more than is won.
constexpr std::size_t kSmallestOffloaded = std::size_t{1} << 18;
// Between two stays steps read and write so many times the bytes of the value, or such a part of
// all that a microbatch does: so in less a value would not have gone to the disk and come back, and
// none goes there more often.
constexpr std::size_t kFarTimes = 64, kFarPart = 16;

// A piece is asked for at most so many steps before it is used.
constexpr std::size_t kMostAhead = 8;

struct Used {
  std::size_t offset = 0, bytes = 0;
  friend auto operator<=>(const Used&, const Used&) = default;
};

std::vector<Used> states_used(const Program& program, const ProgramStep& step) {
  std::vector<ValueId> values;
  if (step.node != kNoNode) values = values_of(program, step);
  std::vector<Used> used;
  for (std::size_t o = 0; o < step.operands.size(); ++o) {
    const Address& address = step.operands[o];
    if (address.region != Region::kOffloadedStates) continue;
    std::size_t bytes = step.bytes / 2;  // of a copy
    if (step.node != kNoNode) {
      const Value& value = program.graph.value(values[o]);
      bytes = stored_bytes(value.type, value.layout);
    }
    used.push_back({address.offset, bytes});
  }
  std::ranges::sort(used);
  return used;
}

// Where they overlap, or follow each other but for less than a page, they are one.
std::vector<Used> merged(const std::vector<Used>& used) {
  constexpr std::size_t kPage = 4096;
  std::vector<Used> result;
  for (const Used& range : used) {
    if (!result.empty() && range.offset < result.back().offset + result.back().bytes + kPage) {
      Used& last = result.back();
      last.bytes = std::max(last.bytes, range.offset + range.bytes - last.offset);
    } else {
      result.push_back(range);
    }
  }
  return result;
}

bool uses(const ProgramStep& step, const OffloadedRange& range) {
  return std::ranges::any_of(step.operands, [&](const Address& address) {
    return address.region == range.address.region && address.offset >= range.address.offset &&
           address.offset < range.address.offset + range.bytes;
  });
}

}  // namespace

std::vector<ValueId> values_of(const Program& program, const ProgramStep& step) {
  const Node& node = program.graph.node(step.node);
  std::vector<ValueId> values = node.inputs;
  if (step.collective) values.resize(1);
  values.insert(values.end(), node.outputs.begin(), node.outputs.end());
  return values;
}

void schedule(std::vector<ProgramStep>& steps, std::vector<OffloadedStay> stays) {
  std::ranges::stable_sort(stays, {}, &OffloadedStay::first);
  std::size_t before = stays.empty() ? 0 : stays[0].first;  // where stays began last
  for (std::size_t begin = 0, end = 0; begin < stays.size(); begin = end) {
    const std::size_t first = stays[begin].first;
    const std::size_t asked = std::max(before, first - std::min(first, kMostAhead));
    for (; end < stays.size() && stays[end].first == first; ++end) {
      steps[asked].prefetched.push_back(stays[end].range);
      steps[stays[end].last].released.push_back(stays[end].range);
    }
    before = first;
  }
}

std::vector<OffloadedStay> stays_of_states(const Program& program) {
  std::vector<OffloadedStay> stays;
  for (std::size_t s = 0; s < program.update.size(); ++s) {
    for (const auto& [offset, bytes] : merged(states_used(program, program.update[s]))) {
      stays.push_back({s, s, {{Region::kOffloadedStates, offset}, bytes}});
    }
  }
  return stays;
}

std::vector<OffloadedStay> stays_of_activation(const std::vector<ProgramStep>& steps,
                                               std::span<const std::size_t> uses,
                                               std::size_t bytes) {
  const auto bytes_of = [](std::span<const ProgramStep> some) {
    std::size_t sum = 0;
    for (const ProgramStep& step : some) sum += step.bytes;
    return sum;
  };
  const std::size_t far = std::min(kFarTimes * bytes, bytes_of(steps) / kFarPart);
  const auto is_far = [&](std::size_t from, std::size_t to) {
    return to > from && bytes_of(std::span(steps).subspan(from + 1, to - from - 1)) >= far;
  };
  std::vector<OffloadedStay> stays;
  for (const std::size_t step : uses) {
    if (stays.empty() || (bytes >= kSmallestOffloaded && is_far(stays.back().last, step))) {
      stays.push_back({step, step, {{Region::kOffloadedArena}, bytes}});
    }
    stays.back().last = step;
  }
  if (!stays.empty()) stays.back().range.is_read_again = false;
  return stays;
}

std::size_t offloaded_window(std::span<const ProgramStep> steps) {
  std::vector<OffloadedRange> asked;  // and not used yet
  std::size_t resident = 0, most = 0;
  for (const ProgramStep& step : steps) {
    asked.insert(asked.end(), step.prefetched.begin(), step.prefetched.end());
    std::erase_if(asked, [&](const OffloadedRange& range) {
      if (!uses(step, range)) return false;
      resident += range.bytes;
      return true;
    });
    most = std::max(most, resident);
    for (const OffloadedRange& range : step.released) resident -= range.bytes;
  }
  return most;
}

}  // namespace concord

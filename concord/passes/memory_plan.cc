#include "concord/passes/memory_plan.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace concord {
namespace {

constexpr std::size_t kAlignment = 64;
std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

std::size_t most_alive(std::span<const Lifetime> buffers) {
  std::map<int, std::ptrdiff_t> change;  // bytes that begin, less bytes that end, at each step
  for (const Lifetime& buffer : buffers) {
    change[buffer.first] += static_cast<std::ptrdiff_t>(aligned(buffer.bytes));
    change[buffer.last + 1] -= static_cast<std::ptrdiff_t>(aligned(buffer.bytes));
  }
  std::ptrdiff_t alive = 0, most = 0;
  for (const auto& [step, bytes] : change) most = std::max(most, alive += bytes);
  return static_cast<std::size_t>(most);
}

}  // namespace

MemoryPlan plan_memory(std::span<const Lifetime> buffers) {
  MemoryPlan plan{.offsets = std::vector<std::size_t>(buffers.size()),
                  .lower_bound = most_alive(buffers)};
  std::vector<std::size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return buffers[a].bytes > buffers[b].bytes;
  });
  std::vector<std::size_t> placed;  // by offset
  for (const std::size_t candidate : order) {
    const Lifetime& life = buffers[candidate];
    std::size_t offset = 0;
    for (const std::size_t other : placed) {
      if (buffers[other].last < life.first || life.last < buffers[other].first) continue;
      if (offset + aligned(life.bytes) <= plan.offsets[other]) break;
      offset = std::max(offset, plan.offsets[other] + aligned(buffers[other].bytes));
    }
    plan.offsets[candidate] = offset;
    plan.bytes = std::max(plan.bytes, offset + aligned(life.bytes));
    placed.insert(std::upper_bound(placed.begin(), placed.end(), candidate,
                                   [&](std::size_t a, std::size_t b) {
                                     return plan.offsets[a] < plan.offsets[b];
                                   }),
                  candidate);
  }
  return plan;
}

bool lie_apart(std::span<const Lifetime> buffers, std::span<const std::size_t> offsets) {
  for (std::size_t a = 0; a < buffers.size(); ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      const bool meet = buffers[a].first <= buffers[b].last && buffers[b].first <= buffers[a].last;
      const bool apart = offsets[a] + buffers[a].bytes <= offsets[b] ||
                         offsets[b] + buffers[b].bytes <= offsets[a];
      if (meet && !apart) return false;
    }
  }
  return true;
}

}  // namespace concord

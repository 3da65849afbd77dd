#include "concord/comm/communicator.h"

#include "concord/base/error.h"
#include "concord/base/parallel.h"

namespace concord::comm {

void add_floats(std::byte* a, const std::byte* b, std::size_t bytes) {
  auto* into = reinterpret_cast<float*>(a);
  const auto* from = reinterpret_cast<const float*>(b);
  parallel_for(static_cast<std::int64_t>(bytes / sizeof(float)), 1 << 14,
               [=](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) into[i] += from[i];
               });
}

std::byte* Alone::share(std::size_t bytes) { return buffers_.emplace_back(bytes).data(); }

const std::byte* Alone::tree_sum(std::span<const Part> parts, std::size_t bytes) {
  CONCORD_CHECK(!parts.empty(), "a sum of nothing");
  nodes_.clear();
  for (const Part& part : parts) nodes_.push_back(part.node);
  for (const Join& join : joins_.of(nodes_)) {
    add_floats(parts[join.into].data, parts[join.from].data, bytes);
  }
  return parts[0].data;
}

}  // namespace concord::comm

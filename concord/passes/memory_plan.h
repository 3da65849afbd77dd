// The memory plan: offsets in one arena for buffers whose lifetimes are known, so that buffers that
// never live at the same time share memory. Greedy by size: the largest buffer first, each at the
// lowest offset that is free during its whole life (Pisarchyk and Lee 2020, "Efficient memory
// management for deep neural net inference", Algorithm 3).
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace concord {

struct Lifetime {
  std::size_t bytes = 0;
  int first = 0;  // step that writes it first
  int last = 0;   // step that reads it last
};

struct MemoryPlan {
  std::vector<std::size_t> offsets;  // multiples of 64 bytes
  std::size_t bytes = 0;             // of the whole arena
  std::size_t lower_bound = 0;       // most bytes alive at one step: no plan can be smaller
};

MemoryPlan plan_memory(std::span<const Lifetime> buffers);

// Whether no two that live at the same time share memory.
bool lie_apart(std::span<const Lifetime> buffers, std::span<const std::size_t> offsets);

}  // namespace concord

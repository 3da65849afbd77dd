// Slots: pieces of planned memory, of which several lie in the same place of a region if they do
// not live at the same time (passes/memory_plan.h). For a compiler (compile.cc).
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "concord/passes/memory_plan.h"
#include "concord/runtime/program.h"

namespace concord {

struct Slot {
  Region region = Region::kArena;
  Lifetime life;
  int part = 0;            // of the region, as an address has it
  std::size_t offset = 0;  // there, once planned
};

class Slots {
 public:
  // Returns its number.
  int add(Region region, std::size_t bytes, int first, int last) {
    slots_.push_back({.region = region, .life = {bytes, first, std::max(first, last)}});
    return size() - 1;
  }
  int size() const { return static_cast<int>(slots_.size()); }
  Slot& operator[](int number) { return slots_[static_cast<std::size_t>(number)]; }
  const Slot& operator[](int number) const { return slots_[static_cast<std::size_t>(number)]; }

  // Gives those of a part of a region their offsets.
  MemoryPlan plan(Region region, int part = 0) {
    const auto lies_there = [&](const Slot& slot) {
      return slot.region == region && slot.part == part;
    };
    std::vector<Lifetime> lives;
    for (const Slot& slot : slots_) {
      if (lies_there(slot)) lives.push_back(slot.life);
    }
    MemoryPlan plan = plan_memory(lives);
    auto offset = plan.offsets.begin();
    for (Slot& slot : slots_) {
      if (lies_there(slot)) slot.offset = *offset++;
    }
    return plan;
  }

  Address address(int number) const {
    const Slot& planned = (*this)[number];
    return {planned.region, planned.offset, planned.part};
  }

 private:
  std::vector<Slot> slots_;
};

}  // namespace concord

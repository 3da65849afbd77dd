// StateStore: the memory of every state (parameters, statistics, optimizer moments), shared by all
// programs of a run: training, its last incomplete batch, evaluation.
//
// States lie in one flat allocation, each in the layout that the first compiled program gave it.
// Reads and writes are in row-major order whatever that layout is.
// Thread safety: none added; a snapshot is taken between steps.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "concord/graph/graph.h"
#include "concord/tensor/buffer.h"

namespace concord {

class StateStore {
 public:
  struct Entry {
    std::string name;
    TensorType type;
    Layout layout;
    State::Role role;
    std::size_t offset = 0;  // bytes from the start of the allocation
  };

  // Takes the states of a graph with layouts assigned; all zero until written.
  explicit StateStore(const Graph& graph);

  // Whoever writes here says so with changed().
  std::byte* data() const { return memory_.data(); }
  std::size_t bytes() const { return memory_.bytes(); }
  const std::vector<Entry>& entries() const { return entries_; }
  // Null when there is no state of this name.
  const Entry* find(std::string_view name) const;

  // By name: for another program over these states.
  std::map<std::string, Layout> layouts() const;

  // Row-major bytes of a state: `destination` holds entry.type.bytes().
  void read(const Entry& entry, std::byte* destination) const;
  void write(const Entry& entry, const std::byte* source);
  // The same as a tensor of its own.
  OwnedTensor read(const Entry& entry) const;

  // Counts the changes: what was computed from the states at one version holds until the next.
  std::uint64_t version() const { return version_; }
  void changed() { ++version_; }

 private:
  std::vector<Entry> entries_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
  Buffer memory_;
  std::uint64_t version_ = 1;
};

}  // namespace concord

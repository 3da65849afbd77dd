// StateStore: the memory of every state (parameters, statistics, optimizer moments), shared by all
// programs of a run: training, its last incomplete batch, evaluation.
//
// States lie flat in memory, each in the layout that the first compiled program gave it. Reads and
// writes are in row-major order whatever that layout is.
//
// Of a state that the ranks of an axis divide, the store holds this rank's part, and its readers
// and writers see all of it. So it is of a state that other ranks have, and this one has not.
//
// States whose updates ranks share lie once for all of them where they have memory in common; else
// each rank has its part, or all of it with the others' parts copied in (graph.h, FlatCut).
//
// States that are offloaded lie in a file (base/file_memory.h), each rank's in one of its own:
// resident are those that are being used.
//
// Where parameters are read older than they are (versions.h), the store keeps the older versions as
// states of their own, "<parameter>.previous1" what it was before the last update.
// Thread safety: none added; a snapshot is taken between steps.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/file_memory.h"
#include "concord/comm/communicator.h"
#include "concord/graph/graph.h"
#include "concord/runtime/versions.h"
#include "concord/tensor/buffer.h"

namespace concord {

class StateStore {
 public:
  struct Entry {
    std::string name;
    TensorType type;                 // of all of it
    TensorType part;                 // that the cuts leave
    std::vector<Cut> cuts;           // how that was cut out; none: it is all
    Layout layout;                   // of the part
    std::optional<FlatCut> flat;     // of the part's numbers
    std::optional<Holders> holders;  // none: all ranks have it
    State::Role role;
    bool in_common = false;
    bool is_offloaded = false;
    bool has_versions = false;
    int age = 0;             // of an older version
    std::size_t offset = 0;  // bytes, in data(), common_data(), offloaded() or a version

    // Whether others have numbers of it that this rank has not.
    bool is_flat() const { return flat && !flat->is_held_whole && !in_common; }
    bool is_here() const { return !holders || holders->here(); }
    // Of memory, here or in common; 0 where it is on other ranks.
    std::size_t bytes() const;
  };

  // Takes the states of a graph with layouts assigned; all zero until written. `in_common`: those
  // with a flat cut lie in memory that the ranks of its axis have in common. `allocates`: else
  // there is no memory before allocate(), and nothing to read or write. `offloaded`: the names of
  // such states; those below kSmallestOffloaded bytes are not worth the calls. Where there are some
  // the store has to be allocated with a folder for them. `older_versions`: of each parameter, how
  // many are kept; of those that this rank has it is the same number.
  static constexpr std::size_t kSmallestOffloaded = std::size_t{1} << 16;
  explicit StateStore(const Graph& graph, bool in_common = false, bool allocates = true,
                      const std::set<std::string>& offloaded = {},
                      const std::map<std::string, int>& older_versions = {});
  void allocate(const std::filesystem::path& folder = {});
  // Those who divide states along this axis; they outlive the store.
  void set_axis(std::string axis, comm::Communicator& ranks) { axes_[std::move(axis)] = &ranks; }
  // Collective along "data": makes what lies in common.
  void share();
  // Whether this rank cannot see all of a state by itself.
  bool is_divided() const;

  // Whoever writes here says so with changed().
  std::byte* data() const { return memory_.data(); }
  std::byte* common_data() const { return common_; }
  const FileMemory& offloaded() const { return offloaded_; }
  // Of parameters that may be read older than they are.
  bool has_versions() const { return version_bytes_ > 0; }
  // That an update copies, to keep the version before it.
  std::size_t kept_bytes() const { return older_ > 0 ? version_bytes_ : 0; }
  Versions& versions() { return versions_; }
  const Versions& versions() const { return versions_; }
  // Of all.
  std::size_t bytes() const {
    return own_bytes_ + common_bytes_ + offloaded_bytes_ + version_bytes_ * version_count();
  }
  std::size_t common_bytes() const { return common_bytes_; }
  std::size_t offloaded_bytes() const { return offloaded_bytes_; }
  // Where a value of a graph lies that is the state `entry`, of all of it or of this rank's part of
  // its numbers.
  std::size_t offset_of(const Entry& entry, const TensorType& value) const;
  const std::vector<Entry>& entries() const { return entries_; }
  // Null when there is no state of this name.
  const Entry* find(std::string_view name) const;

  // By name: for another program over these states.
  std::map<std::string, Layout> layouts() const;

  // Row-major bytes of a state: `destination` holds entry.type.bytes(). Of a state that is divided,
  // read() is collective among those who divide it: all of them ask for all of it. What is in
  // common is written by rank 0, and to be read by others after the next collective call.
  void read(const Entry& entry, std::byte* destination) const;
  void write(const Entry& entry, const std::byte* source);
  // The same as a tensor of its own.
  OwnedTensor read(const Entry& entry) const;
  // Brings all of a state to one rank alone. Collective among those who set axes: all name the same
  // places along them, `root`, and the rank that is there gives a destination.
  void gather(const Entry& entry, const std::map<std::string, int>& root,
              std::byte* destination) const;

  // Counts the changes: what was computed from the states at one version holds until the next.
  std::uint64_t version() const { return version_; }
  void changed() { ++version_; }

 private:
  std::vector<Entry> entries_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
  std::byte* address(const Entry& entry) const {
    return (entry.has_versions   ? versions_.data(entry.age)
            : entry.in_common    ? common_
            : entry.is_offloaded ? offloaded_.data()
                                 : memory_.data()) +
           entry.offset;
  }
  // After it was read or written here.
  void release(const Entry& entry) const {
    if (entry.is_offloaded) offloaded_.release(entry.offset, entry.bytes());
  }

  // Brings what ranks have along an axis together in `out`: false where this rank has no further
  // part in it.
  using Collect = std::function<bool(const std::string& axis, std::span<const std::byte> in,
                                     OwnedTensor& out, const TensorType& type)>;
  void put_together(const Entry& entry, const Collect& collect, std::byte* destination) const;
  // Where the root has the state.
  void gather_here(const Entry& entry, const std::map<std::string, int>& root,
                   std::byte* destination) const;

  void add_older(const std::map<std::string, int>& older_versions);

  std::map<std::string, comm::Communicator*> axes_;
  Buffer memory_;
  std::size_t own_bytes_ = 0;
  std::byte* common_ = nullptr;
  std::size_t common_bytes_ = 0;
  FileMemory offloaded_;
  std::size_t offloaded_bytes_ = 0;
  Versions versions_;
  std::size_t version_bytes_ = 0;  // of each
  int older_ = 0;
  std::size_t version_count() const { return static_cast<std::size_t>(older_) + 1; }
  bool writes_common_ = true;
  std::uint64_t version_ = 1;
};

}  // namespace concord

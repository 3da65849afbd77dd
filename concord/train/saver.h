// Saver: how the ranks of a run write its checkpoints.
//
// Where ranks divide states, the tensors of a checkpoint are dealt out among the ranks that see its
// folder: each comes together on one of them and is written once, by that one, to its place in
// files that are the same whatever the mesh. Else rank 0 writes all. Training goes on meanwhile:
// with each step the ranks agree on whether one of them still writes, and when none does rank 0
// puts the checkpoint in place.
// Thread safety: called by one thread. "Collective" is meant of ranks that divide states.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "concord/comm/communicator.h"
#include "concord/train/checkpoint_store.h"
#include "concord/train/engine.h"

namespace concord::train {

// Where a checkpoint keeps a state. The weights it hands out are those that were evaluated: the
// averages where there are some; what is trained then lies beside the optimizer's states.
struct Place {
  bool is_weight = true;
  std::string name;
};
Place place_of(const StateStore& states, const StateStore::Entry& entry);

// Who of `writers` writes each state: the largest come first, each to the one that has least so
// far.
std::vector<int> writers_of(const StateStore& states, std::span<const int> writers);

// Collective: what each rank says, by rank; at most 255 bytes of it.
std::vector<std::string> texts_of_ranks(comm::Communicator& ranks, const std::string& own);

class Saver {
 public:
  // A step's flag of a rank that writes (StepResult).
  static constexpr std::uint32_t kWrites = 2;

  // Rank 0 takes over `directory`: see CheckpointStore.
  Saver(std::filesystem::path directory, int keep_last, std::optional<std::int64_t> resumed_from,
        comm::Communicator& ranks);
  // Collective; before all below. `engine` outlives it.
  void begin(const Engine& engine);

  // Whether this rank calls what is collective below; else nothing of it.
  bool takes_part() const { return store_ || divides_; }

  // Something that is saved beside the optimizer's states, by rank 0 where all have the same.
  struct Extra {
    std::string name;
    TensorType type;
    std::function<void(std::byte* destination)> read;
  };
  // Collective: begins to save; `info` and `extras` count on rank 0. No save may be in flight.
  // Returns what is wrong, on rank 0, where it cannot begin.
  std::optional<SaveResult> save(CheckpointInfo info, std::span<const Extra> extras);
  // Of the last that could; -1 where there is none.
  std::int64_t begun_step() const { return begun_step_; }

  // What this rank brings to the agreement of a step.
  std::uint32_t flags() const { return is_shared_ && parts_.is_writing() ? kWrites : 0; }
  // Whether what several ranks write is written, and poll() puts it in place.
  bool has_written(std::uint32_t agreed) const { return is_shared_ && (agreed & kWrites) == 0; }
  // After a step, with what was agreed: the result of a save, once, on rank 0. Collective.
  std::optional<SaveResult> poll(std::uint32_t agreed);
  // The same after waiting for it.
  std::optional<SaveResult> wait();
  // Of a job in which nothing collective is possible any more: of what is being put in place.
  std::optional<SaveResult> wait_alone() { return store_ ? store_->wait() : std::nullopt; }

  // Collective: whether this is above the scores of all checkpoints. No save may be in flight.
  bool is_best(double score);

 private:
  bool is_first() const { return ranks_.is_first(); }
  std::map<std::string, int> place_on_axes(int rank) const;
  std::optional<SaveResult> end_writing();

  std::filesystem::path directory_;
  comm::Communicator& ranks_;
  const Engine* engine_ = nullptr;
  std::optional<CheckpointStore> store_;  // of rank 0
  PartWriter parts_;
  bool divides_ = false;
  bool several_write_ = false;
  std::int64_t begun_step_ = -1;
  bool is_shared_ = false;   // a save is being written by several
  std::vector<int> writer_;  // by entry
};

}  // namespace concord::train

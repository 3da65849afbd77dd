// Writes checkpoints in the background and keeps the last few and the best.
//
// A save goes to a directory with a temporary name; its files and the directory are flushed to the
// device, then it is renamed. So a crash, a power cut or a full disk leaves every checkpoint whole
// or not there, and those before it as they were.
#pragma once

#include <cstdint>
#include <filesystem>
#include <future>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "concord/tensor/buffer.h"
#include "concord/train/checkpoint.h"

namespace concord::train {

// Row-major tensors by name.
using TensorMap = std::map<std::string, OwnedTensor, std::less<>>;

// The tensor of that name, to be filled: the one already there if it has that type, else a new one.
Tensor slot(TensorMap& tensors, std::string_view name, const TensorType& type);

using TensorTypes = std::map<std::string, TensorType, std::less<>>;

// A copy of the training state, which training may leave behind while it is being saved.
struct Snapshot {
  CheckpointInfo info;
  TensorMap weights;
  TensorMap optimizer;
  // Tensors of the same checkpoint that other processes write.
  TensorTypes weights_elsewhere = {};
  TensorTypes optimizer_elsewhere = {};
};

// How a save ended.
struct SaveResult {
  std::int64_t step = 0;
  std::string error;  // why it is not in place; empty when it is
};

// Writes in the background what a process has of a checkpoint that several write: each tensor is
// written once, by one of them, to the files that the first has prepared (CheckpointStore).
// Thread safety: called by one thread.
class PartWriter {
 public:
  // Waits for what is being written.
  ~PartWriter();

  // The snapshot of the call before, so that slot() finds its memory. Nothing may be being written.
  Snapshot take_snapshot();
  // `directory`: CheckpointStore::being_written().
  void write(std::filesystem::path directory, Snapshot snapshot);
  bool is_writing() const;
  // For the end of that: why it could not be written; empty where it is.
  std::string wait();
  const CheckpointInfo& info() const { return snapshot_.info; }

 private:
  Snapshot snapshot_;
  std::future<std::string> in_flight_;
};

// One process writes to a directory, or is the first of several that do.
// Thread safety: called by one thread.
class CheckpointStore {
 public:
  // Creates `directory` if needed and removes what a crash during a save left. Keeps the
  // `keep_last` newest checkpoints and the one with the highest score (of equals, the first). A run
  // that resumes says from which step. Later checkpoints in the directory (damaged ones, or a
  // history it left) then do not count, and are removed once its first save is in place.
  // Throws Error when the directory cannot be used, when keep_last < 1, or when there are
  // checkpoints although the run does not resume.
  CheckpointStore(std::filesystem::path directory, int keep_last,
                  std::optional<std::int64_t> resumed_from = std::nullopt);
  // Waits for the save in flight.
  ~CheckpointStore();
  CheckpointStore(const CheckpointStore&) = delete;
  CheckpointStore& operator=(const CheckpointStore&) = delete;

  // The snapshot of the save before, so that slot() finds its memory. Empty before the first save.
  // No save may be in flight.
  Snapshot take_snapshot();

  // Saves `snapshot`, which is all of a checkpoint, in the background. A checkpoint of the same
  // step is replaced. A save that fails leaves every checkpoint as it was. No save may be in
  // flight.
  void save(Snapshot snapshot);

  // A checkpoint that several processes write: prepare() makes its files, then each writes its
  // tensors with a PartWriter, then complete() puts it in place in the background. prepare()
  // returns why it cannot; discard() says that others cannot. Then every checkpoint is as it was.
  std::string prepare(const Snapshot& snapshot);
  void complete(CheckpointInfo info);
  SaveResult discard(std::int64_t step, std::string_view why);
  static std::filesystem::path being_written(const std::filesystem::path& directory,
                                             std::int64_t step);

  // The result of the save in flight, once: wait() waits for its end, poll() does not. nullopt when
  // none is in flight or, from poll(), it has not ended.
  std::optional<SaveResult> wait();
  std::optional<SaveResult> poll();

  // The highest score of the checkpoints in place. No save may be in flight.
  std::optional<double> best_score() const;

 private:
  SaveResult write(const Snapshot& snapshot);
  // Puts files that are written in place.
  void finish(Manifest manifest);
  void publish(const std::filesystem::path& temporary, const std::filesystem::path& checkpoint);
  std::optional<std::int64_t> best_step() const;
  void prune();
  void remove_checkpoint(std::int64_t step);
  void clear_leftovers();

  std::filesystem::path directory_;
  int keep_last_;
  std::map<std::int64_t, std::optional<double>> scores_;  // of each checkpoint in place, by step
  std::vector<std::int64_t> superseded_;                  // later steps that this run will overtake
  Snapshot snapshot_;  // with scores_, belongs to the background thread while in_flight_ is valid
  std::future<SaveResult> in_flight_;
};

}  // namespace concord::train

// The run folder: what a run leaves behind in output.dir.
//
//   config.toml      the resolved configuration
//   metrics.jsonl    one JSON object a line: training every log_every steps, and each evaluation
//   events.*         the same for TensorBoard
//   trace.json       of output.trace_steps (formats/trace_file.h)
//   checkpoints/     see checkpoint_store.h
//   lock             empty; held by the run in progress
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "concord/base/descriptor.h"
#include "concord/formats/json_lines.h"
#include "concord/formats/tensorboard.h"
#include "concord/runtime/trace.h"
#include "concord/train/config.h"
#include "concord/train/trainer.h"

namespace concord::train {

// Keeps other processes from training into the same folder, which it creates if needed. Released
// when destroyed and when the process ends, however it ends.
class RunLock {
 public:
  // Throws Error when another run holds the folder, or it cannot be created. When destroyed,
  // folders that it has created and that are still empty are removed.
  explicit RunLock(const std::filesystem::path& directory);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  std::filesystem::path path_;
  std::vector<std::filesystem::path> created_;  // the innermost first
  Descriptor descriptor_;
};

class RunFolder {
 public:
  // Creates the folder, or continues it after step `first_step`: records of later steps are
  // dropped.
  RunFolder(const Config& config, std::int64_t first_step);

  static std::filesystem::path checkpoints(const Config& config) {
    return std::filesystem::path(config.output.dir) / "checkpoints";
  }

  // `progress` holds the means over the steps since the last record.
  void record_training(const Progress& progress);
  // Returns where it is.
  std::string write_trace(const JobTrace& trace);
  void record_evaluation(const Progress& progress, const Evaluation& evaluation);

 private:
  std::filesystem::path directory_;
  formats::JsonLines metrics_;
  std::optional<formats::EventWriter> events_;
};

}  // namespace concord::train

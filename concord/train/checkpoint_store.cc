#include "concord/train/checkpoint_store.h"

#include <chrono>
#include <cmath>
#include <exception>
#include <system_error>
#include <utility>
#include <vector>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/log.h"

namespace concord::train {
namespace {

namespace fs = std::filesystem;
using formats::NamedTensor;
using formats::SharedSafetensors;

constexpr std::string_view kTemporary = ".tmp";  // being written, or being removed
constexpr std::string_view kReplaced = ".old";   // was in place until its replacement took the name

fs::path with_suffix(fs::path path, std::string_view suffix) { return path += suffix; }

TensorTypes all_types(const TensorMap& tensors, const TensorTypes& elsewhere) {
  TensorTypes all = elsewhere;
  for (const auto& [name, tensor] : tensors) all.emplace(name, tensor.type());
  return all;
}

formats::Metadata weights_metadata(const CheckpointInfo& info) {
  return {{"step", std::to_string(info.step)}};
}

SharedSafetensors weights_file(const fs::path& directory, const Snapshot& snapshot) {
  return {directory / kWeightsFile, all_types(snapshot.weights, snapshot.weights_elsewhere),
          weights_metadata(snapshot.info)};
}

SharedSafetensors optimizer_file(const fs::path& directory, const Snapshot& snapshot) {
  return {directory / kOptimizerFile, all_types(snapshot.optimizer, snapshot.optimizer_elsewhere)};
}

std::vector<NamedTensor> views(const TensorMap& tensors) {
  std::vector<NamedTensor> result;
  for (const auto& [name, tensor] : tensors) {
    const Tensor view = tensor.view();
    result.push_back({name, view.type, {view.data, view.type.bytes()}});
  }
  return result;
}

}  // namespace

Tensor slot(TensorMap& tensors, std::string_view name, const TensorType& type) {
  auto found = tensors.find(name);
  if (found == tensors.end()) found = tensors.emplace(name, OwnedTensor(type)).first;
  if (found->second.type() != type) found->second = OwnedTensor(type);
  return found->second.view();
}

PartWriter::~PartWriter() {
  if (in_flight_.valid()) in_flight_.wait();
}

Snapshot PartWriter::take_snapshot() {
  CONCORD_CHECK(!in_flight_.valid());
  return std::exchange(snapshot_, {});
}

void PartWriter::write(fs::path directory, Snapshot snapshot) {
  CONCORD_CHECK(!in_flight_.valid());
  snapshot_ = std::move(snapshot);
  in_flight_ = std::async(std::launch::async, [this, directory = std::move(directory)] {
    try {
      weights_file(directory, snapshot_).write(views(snapshot_.weights));
      optimizer_file(directory, snapshot_).write(views(snapshot_.optimizer));
      return std::string();
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
  });
}

bool PartWriter::is_writing() const {
  return in_flight_.valid() &&
         in_flight_.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
}

std::string PartWriter::wait() { return in_flight_.valid() ? in_flight_.get() : ""; }

CheckpointStore::CheckpointStore(fs::path directory, int keep_last,
                                 std::optional<std::int64_t> resumed_from)
    : directory_(std::move(directory)), keep_last_(keep_last) {
  if (keep_last < 1) fail("checkpoints to keep: {} given, expected at least 1", keep_last);
  std::error_code error;
  fs::create_directories(directory_, error);
  if (error) fail("cannot create {}: {}", directory_.string(), error.message());
  clear_leftovers();
  for (const std::int64_t step : list_checkpoints(directory_)) {
    if (!resumed_from) {
      fail(
          "{} holds checkpoints of an earlier run: continue it with --resume, or choose another "
          "output.dir",
          directory_.string());
    }
    if (step > *resumed_from) {
      superseded_.push_back(step);
      continue;
    }
    scores_[step] = std::nullopt;
    try {
      scores_[step] = read_manifest(directory_ / checkpoint_name(step)).info.score;
    } catch (const Error&) {
      // Whoever loads it says what is wrong with it; here it only cannot be the best.
    }
  }
}

CheckpointStore::~CheckpointStore() {
  if (in_flight_.valid()) in_flight_.wait();
}

Snapshot CheckpointStore::take_snapshot() {
  CONCORD_CHECK(!in_flight_.valid());
  return std::exchange(snapshot_, {});
}

void CheckpointStore::save(Snapshot snapshot) {
  CONCORD_CHECK(!in_flight_.valid());
  snapshot_ = std::move(snapshot);
  in_flight_ = std::async(std::launch::async, [this] { return write(snapshot_); });
}

std::optional<SaveResult> CheckpointStore::wait() {
  if (!in_flight_.valid()) return std::nullopt;
  return in_flight_.get();
}

std::optional<SaveResult> CheckpointStore::poll() {
  constexpr auto kNow = std::chrono::seconds(0);
  if (!in_flight_.valid() || in_flight_.wait_for(kNow) != std::future_status::ready) {
    return std::nullopt;
  }
  return in_flight_.get();
}

fs::path CheckpointStore::being_written(const fs::path& directory, std::int64_t step) {
  return with_suffix(directory / checkpoint_name(step), kTemporary);
}

SaveResult CheckpointStore::write(const Snapshot& snapshot) {
  const CheckpointInfo& info = snapshot.info;
  const fs::path temporary = being_written(directory_, info.step);
  try {
    fs::create_directory(temporary);
    finish({.info = info,
            .weights = formats::write_safetensors(temporary / kWeightsFile, views(snapshot.weights),
                                                  weights_metadata(info)),
            .optimizer =
                formats::write_safetensors(temporary / kOptimizerFile, views(snapshot.optimizer))});
  } catch (const std::exception& error) {
    return discard(info.step, error.what());
  }
  return {info.step, ""};
}

std::string CheckpointStore::prepare(const Snapshot& snapshot) {
  CONCORD_CHECK(!in_flight_.valid());
  const fs::path temporary = being_written(directory_, snapshot.info.step);
  try {
    fs::create_directory(temporary);
    weights_file(temporary, snapshot).create();
    optimizer_file(temporary, snapshot).create();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

// The digests are of what is there now, whoever wrote it.
void CheckpointStore::complete(CheckpointInfo info) {
  CONCORD_CHECK(!in_flight_.valid());
  in_flight_ = std::async(std::launch::async, [this, info = std::move(info)] {
    const fs::path temporary = being_written(directory_, info.step);
    try {
      finish({.info = info,
              .weights = formats::digest_of(temporary / kWeightsFile),
              .optimizer = formats::digest_of(temporary / kOptimizerFile)});
    } catch (const std::exception& error) {
      return discard(info.step, error.what());
    }
    return SaveResult{info.step, ""};
  });
}

SaveResult CheckpointStore::discard(std::int64_t step, std::string_view why) {
  clear_leftovers();
  return {step, fmt::format(
                    "the checkpoint of step {} was not saved: {}; those before it are as they were",
                    step, why)};
}

void CheckpointStore::finish(Manifest manifest) {
  const CheckpointInfo& info = manifest.info;
  const fs::path temporary = being_written(directory_, info.step);
  OutputFile file(temporary / kManifestFile);
  file.write(to_text(manifest));
  file.sync();
  sync_directory(temporary);
  publish(temporary, directory_ / checkpoint_name(info.step));
  scores_[info.step] = info.score && std::isfinite(*info.score) ? info.score : std::nullopt;
  prune();
}

void CheckpointStore::publish(const fs::path& temporary, const fs::path& checkpoint) {
  const fs::path replaced = with_suffix(checkpoint, kReplaced);
  const bool replaces = fs::exists(checkpoint);
  if (replaces) fs::rename(checkpoint, replaced);
  fs::rename(temporary, checkpoint);
  sync_directory(directory_);
  if (replaces) clear_leftovers();
}

std::optional<std::int64_t> CheckpointStore::best_step() const {
  std::optional<std::int64_t> best;
  for (const auto& [step, score] : scores_) {
    if (score && (!best || *score > *scores_.at(*best))) best = step;
  }
  return best;
}

std::optional<double> CheckpointStore::best_score() const {
  const std::optional<std::int64_t> best = best_step();
  return best ? scores_.at(*best) : std::nullopt;
}

void CheckpointStore::prune() {
  for (const std::int64_t later : std::exchange(superseded_, {})) {
    if (scores_.contains(later)) continue;  // just replaced
    log("checkpoint {} is removed: the run resumed before it", checkpoint_name(later));
    remove_checkpoint(later);
  }
  const std::optional<std::int64_t> best = best_step();
  std::vector<std::int64_t> surplus;
  std::size_t newer = scores_.size();
  for (const auto& [step, score] : scores_) {
    if (newer-- > static_cast<std::size_t>(keep_last_) && step != best) surplus.push_back(step);
  }
  for (const std::int64_t step : surplus) remove_checkpoint(step);
}

void CheckpointStore::remove_checkpoint(std::int64_t step) {
  scores_.erase(step);
  const fs::path checkpoint = directory_ / checkpoint_name(step);
  // Renamed first, so that a crash halfway leaves a leftover and not a damaged checkpoint.
  const fs::path leftover = with_suffix(checkpoint, kTemporary);
  std::error_code error;
  fs::rename(checkpoint, leftover, error);
  if (!error) fs::remove_all(leftover, error);
  if (error) log("cannot remove the old checkpoint {}: {}", checkpoint.string(), error.message());
}

// Removes what an interrupted save left, and puts a checkpoint back whose replacement never came.
// What cannot be removed is left: it has no checkpoint's name, and a save that needs the name will
// say so.
void CheckpointStore::clear_leftovers() {
  std::error_code error;
  std::vector<fs::path> paths;
  for (fs::directory_iterator entries(directory_, error), end; !error && entries != end;
       entries.increment(error)) {
    paths.push_back(entries->path());
  }
  for (const fs::path& path : paths) {
    const fs::path suffix = path.extension();
    const fs::path checkpoint = directory_ / path.stem();
    if (!step_of(path.stem().string()) || (suffix != kTemporary && suffix != kReplaced)) continue;
    if (suffix == kReplaced && !fs::exists(checkpoint, error)) {
      fs::rename(path, checkpoint, error);
    } else {
      fs::remove_all(path, error);
    }
  }
}

}  // namespace concord::train

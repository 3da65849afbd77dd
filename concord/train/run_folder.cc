#include "concord/train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>
#include <vector>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/formats/trace_file.h"

namespace concord::train {
namespace {

std::filesystem::path prepare(const Config& config) {
  std::filesystem::path directory = config.output.dir;
  write_file_atomically(directory / "config.toml", to_toml(config));
  return directory;
}

// Whether the path leads to the open file.
bool names(const std::filesystem::path& path, const Descriptor& file) {
  struct stat at, open;
  return ::stat(path.c_str(), &at) == 0 && ::fstat(file.descriptor(), &open) == 0 &&
         at.st_dev == open.st_dev && at.st_ino == open.st_ino;
}

bool holds_one_file(const std::filesystem::path& folder) {
  std::error_code error;
  const std::filesystem::directory_iterator entries(folder, error);
  return !error && std::distance(begin(entries), end(entries)) == 1;
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& directory) : path_(directory / "lock") {
  for (std::filesystem::path folder = directory; !folder.empty() && !file_exists(folder);
       folder = folder.parent_path()) {
    created_.push_back(folder);
  }
  do {
    std::error_code error;
    std::filesystem::create_directories(directory, error);
    if (error) fail("cannot create output.dir {}: {}", directory.string(), error.message());
    descriptor_ = Descriptor(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (!descriptor_.is_open()) fail("cannot create {}: {}", path_.string(), std::strerror(errno));
    if (::flock(descriptor_.descriptor(), LOCK_EX | LOCK_NB) != 0) {
      fail("another run is training into {}; wait for it to end, or choose another output.dir",
           directory.string());
    }
  } while (!names(path_, descriptor_));  // who held it before may have just removed it
}

RunLock::~RunLock() {
  std::error_code ignored;
  for (const std::filesystem::path& folder : created_) {
    if (folder == created_.front()) {
      std::filesystem::remove(folder / "checkpoints", ignored);  // where it is empty
      if (holds_one_file(folder)) std::filesystem::remove(path_, ignored);
    }
    std::filesystem::remove(folder, ignored);
  }
}

RunFolder::RunFolder(const Config& config, std::int64_t first_step)
    : directory_(prepare(config)), metrics_(directory_ / "metrics.jsonl", first_step) {
  if (config.output.tensorboard) events_.emplace(config.output.dir, first_step + 1);
}

void RunFolder::record_training(const Progress& progress) {
  nlohmann::ordered_json record = {{"kind", "train"},
                                   {"step", progress.step},
                                   {"epoch", progress.epoch},
                                   {"loss", progress.loss}};
  std::vector<formats::Scalar> scalars = {
      {"loss/train", static_cast<float>(progress.loss)},
      {"learning_rate", static_cast<float>(progress.learning_rate)},
      {"speed/samples_per_second", static_cast<float>(progress.samples_per_second)}};
  if (progress.accuracy >= 0) {
    record["accuracy"] = progress.accuracy;
    scalars.push_back({"accuracy/train", static_cast<float>(progress.accuracy)});
  }
  record["learning_rate"] = progress.learning_rate;
  if (progress.staleness > 0) record["staleness"] = progress.staleness;
  record["samples_per_second"] = progress.samples_per_second;
  record["flops_per_second"] = progress.flops_per_second;
  record["data_wait_fraction"] = progress.data_wait_fraction;
  record["communication_fraction"] = progress.communication_fraction;
  record["hidden_fraction"] = progress.hidden_fraction;
  metrics_.write(record);
  if (events_) events_->write(progress.step, scalars);
}

std::string RunFolder::write_trace(const JobTrace& trace) {
  const std::filesystem::path path = directory_ / "trace.json";
  formats::write_trace(path, trace);
  return path.string();
}

void RunFolder::record_evaluation(const Progress& progress, const Evaluation& evaluation) {
  nlohmann::ordered_json record = {{"kind", "test"},
                                   {"step", progress.step},
                                   {"epoch", progress.epoch},
                                   {"loss", evaluation.loss}};
  std::vector<formats::Scalar> scalars = {{"loss/test", static_cast<float>(evaluation.loss)}};
  if (evaluation.accuracy >= 0) {
    record["accuracy"] = evaluation.accuracy;
    scalars.push_back({"accuracy/test", static_cast<float>(evaluation.accuracy)});
  }
  record["seconds"] = evaluation.seconds;
  metrics_.write(record);
  if (events_) events_->write(progress.step, scalars);
}

}  // namespace concord::train

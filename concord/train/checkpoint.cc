#include "concord/train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <system_error>
#include <utility>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/log.h"

namespace concord::train {
namespace {

namespace fs = std::filesystem;
using formats::SafetensorsFile;

constexpr std::size_t kMaxManifest = 1 << 30;  // bytes

SafetensorsFile open_verified(const fs::path& path, const formats::FileDigest& expected) {
  std::error_code error;
  const std::uintmax_t bytes = fs::file_size(path, error);
  if (error) fail("cannot read {}: {}", path.string(), error.message());
  if (bytes != expected.bytes) {
    fail("{} has {} bytes, its manifest says {}", path.string(), bytes, expected.bytes);
  }
  const std::string sum = formats::digest_of(path).xxh3_128;
  if (sum != expected.xxh3_128) {
    fail("{} has checksum {}, its manifest says {}", path.string(), sum, expected.xxh3_128);
  }
  return SafetensorsFile::open(path);
}

Checkpoint load_one(const fs::path& directory) {
  Manifest manifest = read_manifest(directory);
  return {directory, std::move(manifest.info),
          open_verified(directory / kWeightsFile, manifest.weights),
          open_verified(directory / kOptimizerFile, manifest.optimizer)};
}

// The first of `candidates` that is not damaged.
std::optional<Checkpoint> load_first_good(const fs::path& checkpoints,
                                          std::span<const std::int64_t> candidates) {
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    try {
      return load_one(checkpoints / checkpoint_name(candidates[i]));
    } catch (const Error& error) {
      log("checkpoint {} is damaged ({}); {}", checkpoint_name(candidates[i]), error.what(),
          i + 1 < candidates.size() ? "using " + checkpoint_name(candidates[i + 1]) + " instead"
                                    : "there is no other to use");
    }
  }
  if (candidates.empty()) return std::nullopt;
  fail("{}: all {} checkpoints are damaged; start a new run or restore one of them",
       checkpoints.string(), candidates.size());
}

}  // namespace

std::string checkpoint_name(std::int64_t step) { return fmt::format("step-{:08}", step); }

std::optional<std::int64_t> step_of(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  std::int64_t step = -1;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
  if (step < 0 || checkpoint_name(step) != name) return std::nullopt;
  return step;
}

std::vector<std::int64_t> list_checkpoints(const fs::path& checkpoints) {
  std::vector<std::int64_t> steps;
  std::error_code error;
  fs::directory_iterator entries(checkpoints, error);
  if (error == std::errc::no_such_file_or_directory) return steps;
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    if (const auto step = step_of(entries->path().filename().string())) steps.push_back(*step);
  }
  if (error) fail("cannot list {}: {}", checkpoints.string(), error.message());
  std::ranges::sort(steps);
  return steps;
}

Manifest read_manifest(const fs::path& checkpoint) {
  const fs::path path = checkpoint / kManifestFile;
  return parse_manifest(read_file(path, kMaxManifest), path.string());
}

std::optional<Checkpoint> load_latest(const fs::path& checkpoints) {
  std::vector<std::int64_t> steps = list_checkpoints(checkpoints);
  std::ranges::reverse(steps);
  return load_first_good(checkpoints, steps);
}

std::optional<Checkpoint> load_best(const fs::path& checkpoints) {
  std::vector<std::pair<double, std::int64_t>>
      scored;  // the negative score: best first, then earliest
  for (const std::int64_t step : list_checkpoints(checkpoints)) {
    try {
      const Manifest manifest = read_manifest(checkpoints / checkpoint_name(step));
      if (manifest.info.score) scored.emplace_back(-*manifest.info.score, step);
    } catch (const Error& error) {
      log("checkpoint {} is damaged ({}) and cannot be the best", checkpoint_name(step),
          error.what());
    }
  }
  std::ranges::sort(scored);
  std::vector<std::int64_t> steps;
  for (const auto& [score, step] : scored) steps.push_back(step);
  return load_first_good(checkpoints, steps);
}

Checkpoint load_checkpoint(const fs::path& path, Choice choice) {
  std::error_code ignored;
  const fs::path named = path.has_filename() ? path : path.parent_path();  // without a final '/'
  if (fs::exists(path / kManifestFile, ignored) || step_of(named.filename().string())) {
    return load_one(path);
  }
  const fs::path checkpoints =
      fs::is_directory(path / "checkpoints", ignored) ? path / "checkpoints" : path;
  auto found = choice == Choice::kLatest ? load_latest(checkpoints) : load_best(checkpoints);
  if (found) return *std::move(found);
  fail("no checkpoint{} in {}: expected a directory with {}, or one that holds such directories",
       choice == Choice::kBest ? " with a score" : "", path.string(), kManifestFile);
}

}  // namespace concord::train

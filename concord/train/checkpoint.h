// Reads checkpoints. A checkpoint is a directory `step-00001234` with weights.safetensors,
// optimizer.safetensors and manifest.json, whose checksums tell a good one from a damaged one.
// Thread safety: the functions share no state.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "concord/formats/safetensors.h"
#include "concord/train/manifest.h"

namespace concord::train {

struct Checkpoint {
  std::filesystem::path directory;
  CheckpointInfo info;
  formats::SafetensorsFile weights;
  formats::SafetensorsFile optimizer;
};

// The newest good checkpoint in a checkpoints directory. A damaged one is passed over with a line
// in the log that names the file and what differs. nullopt when there is none at all; throws Error
// when there are some and all are damaged.
std::optional<Checkpoint> load_latest(const std::filesystem::path& checkpoints);

// The same for the good checkpoint with the highest score. nullopt when none has a score.
std::optional<Checkpoint> load_best(const std::filesystem::path& checkpoints);

// What a user's --checkpoint names: a checkpoint, or a directory of checkpoints, or a run folder
// that has them in `checkpoints`; of several, the latest or the best. Throws Error when there is
// none, or the one named is damaged.
enum class Choice { kLatest, kBest };
Checkpoint load_checkpoint(const std::filesystem::path& path, Choice choice = Choice::kLatest);

// "step-00001234"
std::string checkpoint_name(std::int64_t step);
// The step of such a name; nullopt for any other.
std::optional<std::int64_t> step_of(const std::string& name);
// The steps that have a directory in `checkpoints`, ascending; none when it does not exist.
std::vector<std::int64_t> list_checkpoints(const std::filesystem::path& checkpoints);
// The manifest of one checkpoint. Throws Error when it is missing or damaged.
Manifest read_manifest(const std::filesystem::path& checkpoint);

}  // namespace concord::train

// The manifest of a checkpoint: what was saved, and the sizes and checksums by which damage shows.
// Thread safety: the functions share no state.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "concord/formats/checksum.h"

namespace concord::train {

// What a checkpoint says besides its tensors.
struct CheckpointInfo {
  std::int64_t step = 0;        // optimizer updates done
  std::int64_t epoch = 0;       // epochs completed
  std::optional<double> score;  // decides which checkpoint is the best; higher is better
  nlohmann::json metrics = nlohmann::json::object();  // for the reader: {"test_accuracy": 0.98}
  nlohmann::json state = nlohmann::json::object();    // whatever the training loop resumes from
};

struct Manifest {
  CheckpointInfo info;
  formats::FileDigest weights;
  formats::FileDigest optimizer;
};

// The files of a checkpoint's directory.
inline constexpr std::string_view kManifestFile = "manifest.json";
inline constexpr std::string_view kWeightsFile = "weights.safetensors";
inline constexpr std::string_view kOptimizerFile = "optimizer.safetensors";

// The manifest as JSON text, sealed. A score that is not finite is left out. Throws Error when a
// string is not UTF-8.
std::string to_text(const Manifest& manifest);

// Throws Error, naming `source`, when the seal is broken or the text is not a manifest this version
// reads.
Manifest parse_manifest(std::string_view text, std::string_view source);

// Closes a JSON object that is still open ("{ ..." without its last brace) with one more entry, the
// checksum of the bytes before it.
std::string seal(std::string_view open_object);

}  // namespace concord::train

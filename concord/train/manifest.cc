#include "concord/train/manifest.h"

#include <fmt/core.h>

#include <cmath>
#include <limits>

#include "concord/base/error.h"
#include "concord/formats/json.h"

namespace concord::train {
namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "concord-checkpoint";
constexpr int kVersion = 1;

nlohmann::ordered_json to_json(const formats::FileDigest& digest) {
  return {{"bytes", digest.bytes}, {"xxh3_128", digest.xxh3_128}};
}

const json& field(const json& object, std::string_view key, std::string_view source) {
  const auto found = object.find(key);
  if (found == object.end()) fail("{}: '{}' is missing", source, key);
  return *found;
}

std::int64_t count_field(const json& object, std::string_view key, std::string_view source) {
  const json& value = field(object, key, source);
  if (!value.is_number_unsigned() ||
      value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
    fail("{}: '{}' is {}, expected a whole number", source, key, value.dump());
  }
  return value.get<std::int64_t>();
}

formats::FileDigest digest_field(const json& files, std::string_view key, std::string_view source) {
  const json& value = field(files, key, source);
  const json& sum = field(value, "xxh3_128", source);
  if (!sum.is_string()) fail("{}: the checksum of '{}' is not a string", source, key);
  return {static_cast<std::uint64_t>(count_field(value, "bytes", source)), sum.get<std::string>()};
}

}  // namespace

std::string seal(std::string_view open_object) {
  return fmt::format("{},\n  \"checksum\": \"{}\"\n}}\n", open_object,
                     formats::checksum(open_object));
}

std::string to_text(const Manifest& manifest) {
  const CheckpointInfo& info = manifest.info;
  nlohmann::ordered_json object = {
      {"format", kFormat}, {"version", kVersion}, {"step", info.step}, {"epoch", info.epoch}};
  if (info.score && std::isfinite(*info.score)) object["score"] = *info.score;
  object["metrics"] = info.metrics;
  object["state"] = info.state;
  object["files"] = {{kWeightsFile, to_json(manifest.weights)},
                     {kOptimizerFile, to_json(manifest.optimizer)}};
  std::string text;
  try {
    text = object.dump(2);
  } catch (const json::exception& error) {
    fail("a checkpoint's metrics or state cannot be written as JSON: {}", error.what());
  }
  text.resize(text.size() - std::string_view("\n}").size());
  text = seal(text);
  parse_manifest(text, "the manifest to be written");  // what cannot be read must not be saved
  return text;
}

Manifest parse_manifest(std::string_view text, std::string_view source) {
  static const std::size_t kSealBytes = seal("").size();
  if (text.size() < kSealBytes || seal(text.substr(0, text.size() - kSealBytes)) != text) {
    fail("{}: its {} bytes do not match the checksum at its end", source, text.size());
  }
  const json object = formats::parse_json(text, source);
  if (const json& format = field(object, "format", source); format != kFormat) {
    fail("{}: format {}, expected \"{}\"", source, format.dump(), kFormat);
  }
  if (const std::int64_t version = count_field(object, "version", source); version != kVersion) {
    fail("{}: version {} of the format, this program reads version {}", source, version, kVersion);
  }
  Manifest manifest;
  manifest.info.step = count_field(object, "step", source);
  manifest.info.epoch = count_field(object, "epoch", source);
  if (const auto score = object.find("score"); score != object.end()) {
    if (!score->is_number()) fail("{}: 'score' is {}, expected a number", source, score->dump());
    manifest.info.score = score->get<double>();
  }
  manifest.info.metrics = field(object, "metrics", source);
  manifest.info.state = field(object, "state", source);
  const json& files = field(object, "files", source);
  manifest.weights = digest_field(files, kWeightsFile, source);
  manifest.optimizer = digest_field(files, kOptimizerFile, source);
  return manifest;
}

}  // namespace concord::train

#include "concord/train/kernel_cache.h"

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/log.h"

namespace concord::train {
namespace {

constexpr std::size_t kMostBytes = std::size_t{64} << 20;

// An entry of the file beside the choices. Raised when kernels gain a candidate: what was chosen
// without it is measured anew.
constexpr const char* kVersionKey = "version";
constexpr const char* kVersion = "2";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::filesystem::path kernel_cache_path() {
  std::filesystem::path cache = environment("XDG_CACHE_HOME");
  if (cache.empty()) {
    const std::filesystem::path home = environment("HOME");
    if (home.empty()) return {};
    cache = home / ".cache";
  }
  return cache / "concord" / "kernels.json";
}

std::string to_json(const KernelChoices& choices) { return nlohmann::json(choices).dump(1); }

KernelChoices parse_kernel_choices(const std::string& text, const std::string& source) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) fail("{} is not a JSON object of kernel choices", source);
  KernelChoices choices;
  for (const auto& [key, choice] : json.items()) {
    if (!choice.is_string()) fail("{}: the choice of \"{}\" is not a string", source, key);
    choices[key] = choice.get<std::string>();
  }
  return choices;
}

KernelChoices load_kernel_choices(const std::filesystem::path& path) {
  if (path.empty() || !file_exists(path)) return {};
  try {
    KernelChoices choices = parse_kernel_choices(read_file(path, kMostBytes), path.string());
    const auto version = choices.extract(kVersionKey);
    if (version.empty() || version.mapped() != kVersion) return {};
    return choices;
  } catch (const Error& error) {
    log("kernels are measured anew: {}", error.what());
    return {};
  }
}

void save_kernel_choices(const std::filesystem::path& path, const KernelChoices& choices) {
  if (path.empty()) {
    log("kernel choices are not remembered: neither XDG_CACHE_HOME nor HOME is set");
    return;
  }
  try {
    KernelChoices all = load_kernel_choices(path);
    const std::size_t before = all.size();
    all.insert(choices.begin(), choices.end());
    if (all.size() == before) return;
    all[kVersionKey] = kVersion;
    std::error_code ignored;
    std::filesystem::create_directories(path.parent_path(), ignored);
    write_file_atomically(path, to_json(all));
  } catch (const Error& error) {
    log("kernel choices are not remembered: {}", error.what());
  }
}

}  // namespace concord::train

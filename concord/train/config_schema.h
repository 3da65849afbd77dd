// The one table of configuration keys. Reading, checking, printing and the reference page all walk
// it, so a key is added in two places: a member in config.h, with its default, and a row here, with
// its limits and meaning.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "concord/train/config.h"

namespace concord {

// The value of a key; a key's type is the alternative its member holds.
using ConfigValue =
    std::variant<bool, std::int64_t, double, std::string, std::vector<std::int64_t>,
                 std::vector<double>, std::vector<std::string>, std::map<std::string, std::int64_t>,
                 std::map<std::string, std::string>>;

// The values a key may take. Numbers: an interval, of every element where the key is an array or a
// table; an open end is not in it. Strings: one of `choices`, or any where that is empty.
struct ConfigLimit {
  double minimum = -std::numeric_limits<double>::infinity();
  double maximum = std::numeric_limits<double>::infinity();
  bool open_minimum = false;
  bool open_maximum = false;
  std::vector<std::string_view> choices;
};

// Another key, one of string values, by which it is decided whether a key is used.
struct ConfigNeed {
  std::string_view key;  // "data.kind"
  std::vector<std::string_view> values;
};

struct ConfigKey {
  std::string_view name;  // "train.batch"
  ConfigValue (*get)(const Config&);
  void (*set)(Config&, ConfigValue);  // the value holds the same alternative as get's
  ConfigLimit limit;
  std::string_view meaning;
  // Whether a resumed run may have another value. Only keys that cannot change what a step
  // computes.
  bool free_on_resume = false;
  // Unless this is met, the key has no effect and must keep its default.
  std::optional<ConfigNeed> need = std::nullopt;
};

// Where model.width is not set, each head has so many numbers (Vaswani et al. 2017); the most heads
// are those whose width is then the most that there may be.
constexpr std::int64_t kUsualHeadWidth = 64;
constexpr std::int64_t kMostHeads = 16384;

struct ConfigSection {
  std::string_view name;     // "train"
  std::string_view meaning;  // Markdown
};

std::span<const ConfigSection> config_sections();
std::span<const ConfigKey> config_keys();  // grouped by section, in the order of config_sections()

// What the key takes, in words: "a positive integer".
std::string expectation(const ConfigKey& key);

// A value as TOML.
std::string format_value(const ConfigValue& value);

struct ConfigProblem {
  std::string_view key;
  std::string message;  // starts with the key and its value
};

// The first value outside its limits, or else in contradiction with another.
std::optional<ConfigProblem> find_problem(const Config& config);

// The page docs/configuration.md.
std::string configuration_reference();

}  // namespace concord

#include "concord/train/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <optional>
#include <sstream>
#include <utility>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/text.h"
#include "concord/optim/optimizer.h"
#include "concord/train/config_schema.h"
#include "concord/train/toml_text.h"

namespace concord {
namespace {

constexpr std::size_t kMaximumFileBytes = std::size_t{1} << 20;

bool is_section(std::string_view name) {
  return std::ranges::count(config_sections(), name, &ConfigSection::name) > 0;
}

std::string_view last_word(std::string_view name) { return name.substr(name.rfind('.') + 1); }

// The known key nearest to `name`. A key of another section is as far as its last word, plus one:
// so "train.learning_rate" leads to "optimizer.learning_rate", and a lone "batch" to "train.batch".
std::string_view nearest_key(std::string_view name) {
  constexpr std::size_t kCompared = 64;
  name = name.substr(0, kCompared);
  const auto distance = [name](const ConfigKey& key) {
    return std::min(edit_distance(name, key.name),
                    edit_distance(last_word(name), last_word(key.name)) + 1);
  };
  return std::ranges::min_element(config_keys(), {}, distance)->name;
}

[[noreturn]] void fail_unknown_key(std::string_view where, std::string_view name) {
  const std::string shown = shortened(quote(name));
  fail("{}: unknown key {}; did you mean {}?", where, shown, quote(nearest_key(name)));
}

[[noreturn]] void fail_unknown_section(std::string_view where, std::string_view name) {
  std::vector<std::string_view> names;
  for (const ConfigSection& section : config_sections()) names.push_back(section.name);
  fail("{}: unknown section {}; did you mean {}?", where, shortened(quote(name)),
       quote(nearest(name, names)));
}

// The node as a T, or nothing where its type differs. An integer serves as a number.
template <typename T>
std::optional<T> convert(const toml::node& node) {
  if constexpr (std::is_same_v<T, double>) {
    if (const auto integer = node.value_exact<std::int64_t>()) return static_cast<double>(*integer);
  }
  return node.value_exact<T>();
}

template <typename T>
std::optional<std::vector<T>> convert_array(const toml::node& node) {
  const toml::array* array = node.as_array();
  if (array == nullptr) return std::nullopt;
  std::vector<T> values;
  for (const toml::node& element : *array) {
    const std::optional<T> value = convert<T>(element);
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  return values;
}

template <typename T>
std::optional<std::map<std::string, T>> convert_table(const toml::node& node) {
  const toml::table* table = node.as_table();
  if (table == nullptr) return std::nullopt;
  std::map<std::string, T> values;
  for (const auto& [name, element] : *table) {
    const std::optional<T> value = convert<T>(element);
    if (!value) return std::nullopt;
    values.emplace(name.str(), *value);
  }
  return values;
}

// The node as a value of the alternative that `example` holds.
std::optional<ConfigValue> convert_like(const ConfigValue& example, const toml::node& node) {
  return std::visit(
      [&]<typename T>(const T&) -> std::optional<ConfigValue> {
        if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) {
          return convert_array<std::int64_t>(node);
        } else if constexpr (std::is_same_v<T, std::vector<double>>) {
          return convert_array<double>(node);
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          if (const auto one = convert<std::string>(node)) return std::vector{*one};
          return convert_array<std::string>(node);
        } else if constexpr (std::is_same_v<T, std::map<std::string, std::int64_t>>) {
          return convert_table<std::int64_t>(node);
        } else if constexpr (std::is_same_v<T, std::map<std::string, std::string>>) {
          return convert_table<std::string>(node);
        } else {
          return convert<T>(node);
        }
      },
      example);
}

// " = 3 (integer)" for a plain value, " (array)" and the like for the rest.
std::string describe(const toml::node& node) {
  std::optional<std::string> text;
  if (const auto boolean = node.value_exact<bool>()) text = format_value(*boolean);
  if (const auto integer = node.value_exact<std::int64_t>()) text = format_value(*integer);
  if (const auto number = node.value_exact<double>()) text = format_value(*number);
  if (const auto string = node.value_exact<std::string>()) text = format_value(*string);
  const std::string type = fmt::format(" ({})", [&]() -> std::string_view {
    switch (node.type()) {
      case toml::node_type::string:
        return "string";
      case toml::node_type::integer:
        return "integer";
      case toml::node_type::floating_point:
        return "float";
      case toml::node_type::boolean:
        return "boolean";
      case toml::node_type::array:
        return "array";
      case toml::node_type::table:
        return "table";
      default:
        return "date or time";
    }
  }());
  return text ? " = " + shortened(*text) + type : type;
}

// Of a key that is a table of T: throws for an entry that is of another type.
template <typename T>
[[noreturn]] void fail_entry(std::string_view where, const ConfigKey& key, std::string_view name,
                             const toml::node& element) {
  fail("{}: {}: {}{}: expected {}{}", where, key.name, shortened(quote(name)), describe(element),
       std::is_same_v<T, std::string> ? "a string" : "an integer",
       element.is_table() ? "; a name that has a dot stands in quotes" : "");
}

// Of a key that is a table: throws for the first entry that is of another type.
void check_entries(std::string_view where, const ConfigKey& key, const ConfigValue& example,
                   const toml::node& node) {
  const toml::table* table = node.as_table();
  if (table == nullptr) return;
  const auto check = [&]<typename T>(const T&) {
    if constexpr (requires { typename T::mapped_type; }) {
      for (const auto& [name, element] : *table) {
        if (convert<typename T::mapped_type>(element)) continue;
        fail_entry<typename T::mapped_type>(where, key, name.str(), element);
      }
    }
  };
  std::visit(check, example);
}

// A Config under construction, which remembers where each key was set.
class ConfigBuilder {
 public:
  explicit ConfigBuilder(std::string_view file_name) : file_name_(file_name) {}

  void read_file_text(std::string_view text) { read_text(text, file_name_); }
  // Of a file that has the keys of a plan alone.
  // Throws where the configuration says something else, or what a plan would replace.
  void read_plan(const std::filesystem::path& path);
  void apply_override(std::string_view text);
  Config finish();

 private:
  void read_text(std::string_view text, const std::string& file_name);
  void set_usual_options();
  void assign(const std::string& where, std::string_view name, const toml::node& node);
  bool assign_entry(const std::string& where, std::string_view name, const toml::node& node);

  std::string file_name_;
  std::string plan_;  // the file's name; empty: none is given
  Config config_;
  std::map<std::string_view, std::string> origin_;  // key -> "run.toml:12"
};

// Of a key that is a table, one entry: "parallel.mesh.tensor". False where it is none.
bool ConfigBuilder::assign_entry(const std::string& where, std::string_view name,
                                 const toml::node& node) {
  const auto keys = config_keys();
  const auto key = std::ranges::find_if(keys, [&](const ConfigKey& candidate) {
    return name.starts_with(fmt::format("{}.", candidate.name));
  });
  if (key == keys.end()) return false;
  ConfigValue value = key->get(config_);
  const std::string entry(name.substr(key->name.size() + 1));
  const bool is_taken = std::visit(
      [&]<typename T>(T& table) {
        if constexpr (requires { table.insert_or_assign(entry, typename T::mapped_type()); }) {
          const auto one = convert<typename T::mapped_type>(node);
          if (!one) fail_entry<typename T::mapped_type>(where, *key, entry, node);
          table.insert_or_assign(entry, *one);
          return true;
        }
        return false;
      },
      value);
  if (!is_taken) return false;
  key->set(config_, std::move(value));
  origin_[key->name] = where;
  return true;
}

void ConfigBuilder::assign(const std::string& where, std::string_view name,
                           const toml::node& node) {
  const auto keys = config_keys();
  const auto key = std::ranges::find(keys, name, &ConfigKey::name);
  if (key == keys.end()) {
    if (!assign_entry(where, name, node)) fail_unknown_key(where, name);
    return;
  }
  std::optional<ConfigValue> value = convert_like(key->get(config_), node);
  if (!value) {
    check_entries(where, *key, key->get(config_), node);
    fail("{}: {}{}: expected {}", where, name, describe(node), expectation(*key));
  }
  key->set(config_, std::move(*value));
  origin_[key->name] = where;
}

void ConfigBuilder::read_plan(const std::filesystem::path& path) {
  plan_ = path.string();
  const std::map<std::string_view, std::string> before = std::exchange(origin_, {});
  const ParallelConfig given = config_.parallel;
  const ParallelConfig& read = config_.parallel;
  read_text(read_file(path, kMaximumFileBytes), plan_);
  for (const auto& [key, where] : origin_) {
    constexpr std::string_view kOfPlans[] = {"parallel.mesh", "parallel.place", "parallel.zero",
                                             "parallel.schedule", "parallel.chunks"};
    if (std::ranges::find(kOfPlans, key) != std::end(kOfPlans)) continue;
    fail(
        "{}: {} is no part of a plan: expected parallel.mesh, zero, place, schedule and chunks "
        "alone",
        where, key);
  }
  for (const std::string_view key : {"parallel.mesh", "parallel.zero", "parallel.place"}) {
    if (origin_.contains(key)) continue;
    fail("{}: a plan without {}: expected one that `concord plan show --out` has saved", plan_,
         key);
  }
  for (const auto& [name, text] : read.place) {
    if (text.find(" of [") != text.npos) continue;
    fail(
        "{}: {} = {}: expected its shape, too, such as \"tensor:split(0) of [32, 64]\", as "
        "`concord plan show --out` saves it",
        plan_, quote(name), quote(text));
  }
  // What the configuration says must hold, too.
  if (!given.place.empty()) {
    fail("{}: parallel.place is set, and --plan {} places all weights: leave out one of them",
         before.at("parallel.place"), plan_);
  }
  const auto expect_equal = [&](std::string_view key, const auto& wanted, const auto& planned) {
    if (!before.contains(key) || wanted == planned) return;
    fail("{}: {} = {}, and --plan {} has {}: make them equal, or leave it out", before.at(key), key,
         wanted, plan_, planned);
  };
  expect_equal("parallel.zero", given.zero, read.zero);
  expect_equal("parallel.schedule", given.schedule, read.schedule);
  expect_equal("parallel.chunks", given.chunks, read.chunks);
  for (const auto& [axis, ranks] : given.mesh) {
    const auto found = read.mesh.find(axis);
    const std::int64_t planned = found == read.mesh.end() ? 1 : found->second;
    if (ranks == planned) continue;
    fail("{}: parallel.mesh has {} = {}, and --plan {} has {}: make them equal, or leave it out",
         before.at("parallel.mesh"), axis, ranks, plan_, planned);
  }
  origin_.insert(before.begin(), before.end());
}

void ConfigBuilder::read_text(std::string_view text, const std::string& file_name) {
  if (text.size() > kMaximumFileBytes) {
    fail("{} has {} bytes: a configuration has at most {}", file_name, text.size(),
         kMaximumFileBytes);
  }
  const toml::table root = parse_toml(text, file_name);

  // toml++ sorts by name; messages should come in the order of the lines.
  struct Entry {
    toml::source_index line;
    std::string section;  // empty: at the top of the file
    std::string name;
    const toml::node* node;
  };
  std::vector<Entry> entries;
  for (const auto& [section, node] : root) {
    const toml::table* table = is_section(section.str()) ? node.as_table() : nullptr;
    if (table == nullptr) {
      entries.push_back({section.source().begin.line, "", std::string(section.str()), &node});
      continue;
    }
    for (const auto& [key, value] : *table) {
      entries.push_back({key.source().begin.line, std::string(section.str()),
                         fmt::format("{}.{}", section.str(), key.str()), &value});
    }
  }
  std::ranges::stable_sort(entries, {}, &Entry::line);

  for (const auto& [line, section, name, node] : entries) {
    const std::string where = fmt::format("{}:{}", file_name, line);
    if (!section.empty()) {
      assign(where, name, *node);
    } else if (is_section(name)) {
      fail("{}: {}{}: expected a section, [{}]", where, name, describe(*node), name);
    } else if (node->is_table() || node->is_array_of_tables()) {
      fail_unknown_section(where, name);
    } else {
      fail_unknown_key(where, name);
    }
  }
}

void ConfigBuilder::apply_override(std::string_view text) {
  if (text.size() > kMaximumFileBytes || std::ranges::any_of(text, is_control)) {
    fail("--set {}: expected one line of at most {} bytes", shortened(quote(text)),
         kMaximumFileBytes);
  }
  const std::string where = "--set " + shortened(text);
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos) {
    fail("{}: expected section.key=value", where);
  }
  const std::string_view name = trimmed(text.substr(0, equals));
  const std::string value(trimmed(text.substr(equals + 1)));
  const std::string_view section = name.substr(0, name.find('.'));
  if (name.find('.') != std::string_view::npos && !is_section(section)) {
    fail_unknown_section(where, section);
  }
  if (name == "parallel.place" && !plan_.empty()) {
    fail(
        "{}: all that --plan {} places would be dropped: set one weight, parallel.place.NAME, or "
        "leave out the plan",
        where, plan_);
  }
  // Bare words: `--set data.dir=/data/2024` is a string because its key is one; for other keys a
  // word that is no TOML value is shown as the string it must be.
  const auto keys = config_keys();
  const auto key = std::ranges::find(keys, name, &ConfigKey::name);
  const auto holds = [&]<typename T>(const T&) {
    return key != keys.end() && std::holds_alternative<T>(key->get(config_));
  };
  const bool wants_string = holds(std::string());
  const bool wants_strings = holds(std::vector<std::string>());
  const bool bracketed = value.find_first_of(wants_string ? "\"'{" : "\"'[{") == 0;
  const toml::value<std::string> word(value);
  if ((wants_string || wants_strings) && !bracketed) return assign(where, name, word);
  std::optional<toml::table> parsed;
  try {
    parsed = parse_toml("value = " + value, where);
  } catch (const Error&) {
    if (bracketed) throw;
    return assign(where, name, word);
  }
  assign(where, name, *parsed->get("value"));
}

// What is not set becomes what is usual for the model and the optimizer.
void ConfigBuilder::set_usual_options() {
  OptimizerConfig& optimizer = config_.optimizer;
  const OptimizerOptions usual = usual_options(optimizer.name);
  const auto set = [this](std::string_view key, auto& value, const auto& usual_value) {
    if (!origin_.contains(key)) value = usual_value;
  };
  set("optimizer.momentum", optimizer.momentum, usual.momentum);
  set("optimizer.nesterov", optimizer.nesterov, usual.nesterov);
  set("optimizer.decoupled", optimizer.decoupled, usual.decoupled);
  set("optimizer.beta2", optimizer.beta2, usual.beta2);
  set("optimizer.epsilon", optimizer.epsilon, usual.epsilon);
  ParallelConfig& parallel = config_.parallel;
  if (parallel.sync == "diloco") {
    set("parallel.outer_learning_rate", parallel.outer_learning_rate, 0.7);
    set("parallel.outer_momentum", parallel.outer_momentum, 0.9);
  }
  ModelConfig& model = config_.model;
  if (model.name == "gpt" || model.name == "bert" || model.name == "vit") {
    // Heads out of range are a problem of their own.
    set("model.width", model.width,
        kUsualHeadWidth * std::clamp<std::int64_t>(model.heads, 1, kMostHeads));
  }
  if (!usual.decoupled || optimizer.decoupled) return;
  fail("{}: optimizer.decoupled = false: expected true for {}{}", origin_["optimizer.decoupled"],
       optimizer.name, optimizer.name == "adamw" ? "; adam is the one without" : "");
}

Config ConfigBuilder::finish() {
  if (config_.output.dir.empty()) {
    config_.output.dir = "runs/" + std::filesystem::path(file_name_).stem().string();
  }
  set_usual_options();
  if (const auto problem = find_problem(config_)) {
    const auto origin = origin_.find(problem->key);
    fail("{}: {}", origin == origin_.end() ? file_name_ : origin->second, problem->message);
  }
  return std::move(config_);
}

}  // namespace

Config parse_config(std::string_view text, std::string_view file_name,
                    std::span<const std::string> overrides) {
  ConfigBuilder builder(file_name);
  builder.read_file_text(text);
  for (const std::string& override_text : overrides) builder.apply_override(override_text);
  return builder.finish();
}

Config load_config(const std::filesystem::path& path, std::span<const std::string> overrides,
                   const std::filesystem::path& plan) {
  ConfigBuilder builder(path.string());
  builder.read_file_text(read_file(path, kMaximumFileBytes));
  if (!plan.empty()) builder.read_plan(plan);
  for (const std::string& override_text : overrides) builder.apply_override(override_text);
  return builder.finish();
}

void validate_config(const Config& config) {
  if (const auto problem = find_problem(config)) fail("{}", problem->message);
}

void check_resumable(const Config& before, const Config& now) {
  // Ranks that train by themselves meet in the mean at these too.
  constexpr std::string_view kOfPeriods[] = {"parallel.leaves", "train.eval_every_epochs",
                                             "train.checkpoint_every_steps"};
  const bool has_periods = before.parallel.sync != "all_reduce";
  // Gradients of weights as old as the stages say, of which a checkpoint has the older ones.
  const auto is_stale = [&](std::string_view schedule) {
    return before.parallel.schedule == schedule || now.parallel.schedule == schedule;
  };
  for (const ConfigKey& key : config_keys()) {
    const bool is_of_periods = has_periods && std::ranges::count(kOfPeriods, key.name) > 0;
    const bool is_of_stale =
        (key.name == "parallel.schedule" && (is_stale("pipedream") || is_stale("pipedream-2bw"))) ||
        (key.name == "parallel.mesh" && is_stale("pipedream"));
    if (key.free_on_resume && !is_of_periods && !is_of_stale) continue;
    if (key.get(before) == key.get(now)) continue;
    fail(
        "{} = {}, but the run began with {}: set it back to resume, or start a new run in another "
        "output.dir",
        key.name, shortened(format_value(key.get(now))), shortened(format_value(key.get(before))));
  }
}

void check_same_model(const Config& before, const Config& now) {
  // What the checkpoint's task decides, not the configuration (data/task.h), and the precision for
  // which the weights were made.
  constexpr std::string_view kOfTraining[] = {
      "data.target",     "data.categorical", "data.normalize",         "data.mean",
      "data.std",        "data.image_size",  "data.normalize_targets", "data.tokenizer",
      "data.mask_token", "train.precision"};
  for (const ConfigKey& key : config_keys()) {
    const bool of_model = key.name.starts_with("model.") && key.name != "model.weights";
    if (!of_model && std::ranges::count(kOfTraining, key.name) == 0) continue;
    if (key.get(before) == key.get(now)) continue;
    fail("{} = {}, but the checkpoint's model was trained with {}: set it so", key.name,
         shortened(format_value(key.get(now))), shortened(format_value(key.get(before))));
  }
}

std::string to_toml(const Config& config) {
  std::string text;
  for (const ConfigSection& section : config_sections()) {
    text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section.name);
    for (const ConfigKey& key : config_keys()) {
      const std::size_t dot = key.name.find('.');
      if (key.name.substr(0, dot) != section.name) continue;
      text += fmt::format("{} = {}\n", key.name.substr(dot + 1), format_value(key.get(config)));
    }
  }
  return text;
}

}  // namespace concord

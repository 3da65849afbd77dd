#include "concord/data/task.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "concord/base/error.h"

namespace concord::data {
namespace {

using nlohmann::json;

constexpr std::string_view kRoles[] = {"numeric", "categorical", "class", "value"};

json to_json(const Normalization& normalization) {
  return {{"mean", normalization.mean}, {"deviation", normalization.deviation}};
}

// In the order of their numbers.
std::vector<std::string> names_of(const CsvColumn& column) {
  std::vector<std::string> names(column.categories.size());
  for (const auto& [name, number] : column.categories) {
    names[static_cast<std::size_t>(number)] = name;
  }
  return names;
}

json to_json(const CsvSchema& table) {
  json columns = json::array();
  for (const CsvColumn& column : table.columns) {
    columns.push_back({{"name", column.name},
                       {"role", kRoles[static_cast<std::size_t>(column.role)]},
                       {"categories", names_of(column)}});
  }
  return {{"header", table.header},
          {"separator", std::string(1, table.separator)},
          {"columns", std::move(columns)}};
}

Normalization parse_normalization(const json& from) {
  return {from.at("mean").get<std::vector<float>>(),
          from.at("deviation").get<std::vector<float>>()};
}

CsvSchema parse_table(const json& from, std::string_view source) {
  CsvSchema table;
  table.header = from.at("header").get<bool>();
  const auto separator = from.at("separator").get<std::string>();
  if (separator.size() != 1) fail("{}: the separator {:?}: expected one byte", source, separator);
  table.separator = separator.front();
  for (const json& entry : from.at("columns")) {
    CsvColumn column{.name = entry.at("name").get<std::string>()};
    const auto role = entry.at("role").get<std::string>();
    const auto place = std::ranges::find(kRoles, role);
    if (place == std::end(kRoles)) fail("{}: a column of role {:?}", source, role);
    column.role = static_cast<CsvColumn::Role>(place - std::begin(kRoles));
    for (const json& name : entry.at("categories")) {
      column.categories.emplace(name.get<std::string>(),
                                static_cast<int>(column.categories.size()));
    }
    if (column.categories.size() != entry.at("categories").size()) {
      fail("{}: column {:?} has a category twice", source, column.name);
    }
    table.columns.push_back(std::move(column));
  }
  return table;
}

void check(const Task& task, std::string_view source) {
  constexpr double kMostElements = 1e10;  // keeps products with a batch within 64 bits
  double elements = 1;
  for (const std::int64_t extent : task.sample) {
    elements *= static_cast<double>(std::max<std::int64_t>(extent, 0));
  }
  if (task.sample.rank() == 0 || elements < 1 || elements > kMostElements || task.outputs < 1) {
    fail("{}: samples of {} and {} outputs: expected positive extents and at most {} elements",
         source, to_string(task.sample), task.outputs, kMostElements);
  }
  if (task.mask && (*task.mask < 0 || *task.mask >= task.outputs)) {
    fail("{}: a mask of id {} among {} tokens", source, *task.mask, task.outputs);
  }
  if (!task.class_names.empty() &&
      task.class_names.size() != static_cast<std::size_t>(task.outputs)) {
    fail("{}: {} names for {} classes", source, task.class_names.size(), task.outputs);
  }
  try {
    check_normalization(task.features, task.sample);
    check_normalization(task.targets, {task.outputs});
  } catch (const Error& error) {
    fail("{}: {}", source, error.what());
  }
}

}  // namespace

void check_names(const Task& task) {
  const auto check = [](const std::string& name) {
    try {
      json(name).dump();
    } catch (const json::exception&) {
      fail(
          "the name {:?} of a class, column or category is not UTF-8: expected it to be, since it "
          "is saved with the model",
          name);
    }
  };
  std::ranges::for_each(task.class_names, check);
  if (!task.table) return;
  for (const CsvColumn& column : task.table->columns) {
    check(column.name);
    for (const auto& [name, number] : column.categories) check(name);
  }
}

json to_json(const Task& task) {
  return {{"sample_type", task.sample_type == SampleType::kTokens ? "tokens" : "values"},
          {"sample", task.sample.dims()},
          {"target", task.target == TargetType::kClass ? "class" : "values"},
          {"outputs", task.outputs},
          {"class_names", task.class_names},
          {"scaled_bytes", task.scaled_bytes},
          {"features", to_json(task.features)},
          {"targets", to_json(task.targets)},
          {"table", task.table ? to_json(*task.table) : json()},
          {"tokenizer", task.tokenizer ? task.tokenizer->to_json() : json()},
          {"mask", task.mask ? json(*task.mask) : json()}};
}

Task parse_task(const json& from, std::string_view source) {
  try {
    Task task;
    const auto type = from.at("sample_type").get<std::string>();
    if (type != "values" && type != "tokens") fail("{}: samples of {:?}", source, type);
    task.sample_type = type == "tokens" ? SampleType::kTokens : SampleType::kValues;
    task.sample = Shape(from.at("sample").get<std::vector<std::int64_t>>());
    const auto target = from.at("target").get<std::string>();
    if (target != "class" && target != "values") fail("{}: a target of {:?}", source, target);
    task.target = target == "class" ? TargetType::kClass : TargetType::kValues;
    task.outputs = from.at("outputs").get<int>();
    task.class_names = from.at("class_names").get<std::vector<std::string>>();
    task.scaled_bytes = from.at("scaled_bytes").get<bool>();
    task.features = parse_normalization(from.at("features"));
    task.targets = parse_normalization(from.at("targets"));
    if (!from.at("table").is_null()) task.table = parse_table(from.at("table"), source);
    if (const json& tokenizer = from.at("tokenizer"); !tokenizer.is_null()) {
      task.tokenizer = Tokenizer::from_json(tokenizer, source);
    }
    if (const json mask = from.value("mask", json()); !mask.is_null()) {
      task.mask = mask.get<TokenId>();
    }
    check(task, source);
    return task;
  } catch (const json::exception& error) {
    fail("{}: not the description of a task: {}", source, error.what());
  }
}

}  // namespace concord::data

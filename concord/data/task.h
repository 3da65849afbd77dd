// Task: what a data set asks of a model, apart from the samples. Whoever knows it can read further
// samples as those the model learned from were read, and understand the answers; so it is saved
// with each checkpoint, and evaluation and prediction need no training data.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "concord/data/csv.h"
#include "concord/data/dataset.h"
#include "concord/data/normalization.h"
#include "concord/data/tokenizer.h"

namespace concord::data {

struct Task {
  SampleType sample_type = SampleType::kValues;
  Shape sample;  // [C, H, W], [features] or, of tokens, [length]
  TargetType target = TargetType::kClass;
  int outputs = 0;  // classes, tokens of the vocabulary (and `mask`), or numbers in a target
  std::vector<std::string> class_names;  // empty where the data names none
  bool scaled_bytes = false;             // samples were bytes, scaled to [0, 1]
  Normalization features;
  Normalization targets;               // of values
  std::optional<CsvSchema> table;      // csv: the columns and their categories
  std::optional<Tokenizer> tokenizer;  // text
  std::optional<TokenId> mask;         // of tokens: what hides those to be filled in (masking.h)
};

// Throws Error when a name (of a class, a column, a category) is not UTF-8, as JSON must be.
void check_names(const Task& task);

nlohmann::json to_json(const Task& task);

// Throws Error naming `source` when `json` is no task, or one that contradicts itself.
Task parse_task(const nlohmann::json& json, std::string_view source);

}  // namespace concord::data

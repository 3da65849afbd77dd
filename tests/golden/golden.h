// The golden trainings of tools/make_goldens.py on the C++ side: how each is set up, its batches,
// and the losses that PyTorch got. For tests.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "concord/base/file.h"
#include "concord/base/philox.h"
#include "concord/nn/initialize.h"
#include "concord/nn/step.h"

namespace concord::golden {

struct Golden {
  nn::StepOptions options;  // microbatch: the whole batch, one leaf
  std::uint64_t seed = 0;   // of initialize() and batch_of()
  double learning_rate = 0;
  std::vector<double> losses;  // before each step, in double precision
  double evaluation_loss = 0;  // after them, of the next batch
  // The largest relative difference of these losses between f32 and PyTorch's bf16, by seed; none
  // where the optimizer alone is of interest.
  std::vector<double> bf16_spread;
};

// Reads tests/golden/<name>.json below `source_dir`.
inline Golden load(const std::string& source_dir, const std::string& name) {
  const auto json = nlohmann::json::parse(
      read_file(std::filesystem::path(source_dir) / "tests" / "golden" / (name + ".json")));
  Golden golden;
  nn::ModelOptions& model = golden.options.model;
  json.at("model").get_to(model.name);
  const auto read = [&](const char* key, auto& value) {
    if (json.contains(key)) json.at(key).get_to(value);
  };
  read("hidden", model.hidden);
  read("width", model.width);
  read("blocks", model.blocks);
  read("zero_residual", model.zero_residual);
  read("layers", model.layers);
  read("heads", model.heads);
  read("mlp", model.mlp);
  read("key_value_heads", model.key_value_heads);
  read("positions", model.positions);
  read("norm", model.norm);
  read("tied_embeddings", model.tied_embeddings);
  read("patch", model.patch);
  read("max_length", model.max_length);
  read("tokens", golden.options.tokens);
  read("labelled", golden.options.labelled);
  golden.options.sample = Shape(json.at("sample").get<std::vector<std::int64_t>>());
  golden.options.outputs = json.at("classes");
  golden.options.microbatch = json.at("batch");
  golden.options.optimizer = usual_options(json.value("optimizer", "sgd"));
  golden.options.optimizer.momentum = json.at("momentum");
  golden.options.optimizer.weight_decay = json.value("weight_decay", 0.0);
  golden.seed = json.at("seed");
  golden.learning_rate = json.at("learning_rate");
  golden.losses = json.at("losses").get<std::vector<double>>();
  golden.evaluation_loss = json.at("evaluation_loss");
  json.at("bf16_spread").get_to(golden.bf16_spread);
  return golden;
}

struct Batch {
  std::vector<float> features;  // row-major; empty for tokens
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> labels;
};

// The first token of a sample is uniform, each other is 5 times the one before it, plus 3 or 4,
// modulo their number. A token's label is the token after it. Where tokens are masked, those whose
// place, counted over the batch, plus the step is a multiple of 7 are, by the last token, and have
// themselves as labels; the others have none.
inline Batch tokens_of(const Golden& golden, std::uint32_t step) {
  const bool is_masked = golden.options.labelled > 0;
  const RandomStream stream{golden.seed, random_stream("tokens"), step};
  const auto length = static_cast<std::uint64_t>(golden.options.sample[0]);
  const auto classes = static_cast<std::uint32_t>(golden.options.outputs - is_masked);
  Batch batch;
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(golden.options.microbatch); ++i) {
    std::uint32_t token = uniform_below(stream.bits(i * (length + 1)), classes);
    for (std::uint64_t j = 1; j <= length; ++j) {
      batch.tokens.push_back(static_cast<std::int32_t>(token));
      token = (5 * token + 3 + (stream.bits(i * (length + 1) + j) >> 31)) % classes;
      batch.labels.push_back(static_cast<std::int32_t>(token));
    }
  }
  if (!is_masked) return batch;
  for (std::size_t place = 0; place < batch.tokens.size(); ++place) {
    const bool is_hidden = (place + step) % 7 == 0;
    batch.labels[place] = is_hidden ? batch.tokens[place] : -1;
    if (is_hidden) batch.tokens[place] = static_cast<std::int32_t>(classes);
  }
  return batch;
}

// The labels of a step are uniform. Feature j of a sample is 2 * prototype + noise, both uniform in
// [-1, 1); every label has its prototype, the same for 8 neighbouring features.
inline Batch batch_of(const Golden& golden, std::uint32_t step) {
  if (golden.options.tokens) return tokens_of(golden, step);
  const RandomStream labels{golden.seed, random_stream("labels"), step};
  const RandomStream prototypes{golden.seed, random_stream("prototypes"), 0};
  const RandomStream noise{golden.seed, random_stream("noise"), step};
  const auto symmetric = [](const RandomStream& stream, std::uint64_t index) {
    return 2.0 * double{uniform01(stream.bits(index))} - 1.0;
  };
  const auto size = static_cast<std::uint64_t>(golden.options.sample.elements());
  const auto classes = static_cast<std::uint32_t>(golden.options.outputs);
  Batch batch;
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(golden.options.microbatch); ++i) {
    const std::uint32_t label = uniform_below(labels.bits(i), classes);
    batch.labels.push_back(static_cast<std::int32_t>(label));
    for (std::uint64_t j = 0; j < size; ++j) {
      batch.features.push_back(static_cast<float>(
          2.0 * symmetric(prototypes, label * size + j / 8) + symmetric(noise, i * size + j)));
    }
  }
  return batch;
}

}  // namespace concord::golden

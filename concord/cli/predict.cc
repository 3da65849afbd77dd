// concord predict: a checkpoint applied to files, or to a text with tokens to be filled in.
#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "concord/base/text.h"
#include "concord/cli/command.h"
#include "concord/cli/units.h"
#include "concord/train/fill_masks.h"
#include "concord/train/trainer.h"

namespace concord::cli {
namespace {

struct PredictArguments {
  ConfigArguments config;
  std::string checkpoint;
  std::vector<std::string> inputs;
  std::string text;
  bool json = false;
};

nlohmann::json to_json(const std::vector<train::Prediction>& predictions) {
  nlohmann::json list = nlohmann::json::array();
  for (const train::Prediction& prediction : predictions) {
    nlohmann::json values = nlohmann::json::array();
    for (const double value : prediction.values) values.push_back(number_or_null(value));
    nlohmann::json entry = {{"file", prediction.file}, {"values", std::move(values)}};
    entry["names"] = prediction.names;
    entry["label"] = nullptr;
    entry["class"] = nullptr;
    if (prediction.label >= 0) {
      entry["label"] = prediction.label;
      entry["class"] = prediction.class_name;
    }
    list.push_back(std::move(entry));
  }
  return {{"predictions", std::move(list)}};
}

// "cat.png: 3 (cat), 97.1 %", or "new.csv: price=41.5 rent=2.1".
std::string format_prediction(const train::Prediction& prediction) {
  std::string text = prediction.file + ":";
  if (prediction.label < 0) {
    for (std::size_t i = 0; i < prediction.values.size(); ++i) {
      const std::string name = i < prediction.names.size() ? prediction.names[i] + "=" : "";
      text += fmt::format(" {}{:.6g}", name, prediction.values[i]);
    }
    return text;
  }
  text += fmt::format(" {}", prediction.label);
  if (!prediction.class_name.empty()) text += fmt::format(" ({})", prediction.class_name);
  const auto label = static_cast<std::size_t>(prediction.label);
  if (label < prediction.values.size()) text += ", " + format_percent(prediction.values[label]);
  return text;
}

void predict_from_files(const PredictArguments& arguments) {
  const std::vector<std::filesystem::path> files(arguments.inputs.begin(), arguments.inputs.end());
  const std::vector<train::Prediction> predictions =
      train::predict(arguments.config.load(), arguments.checkpoint, files);
  if (arguments.json) {
    print_json(to_json(predictions));
    return;
  }
  for (const train::Prediction& prediction : predictions) {
    fmt::print("{}\n", format_prediction(prediction));
  }
}

nlohmann::json to_json(const train::FilledText& filled) {
  nlohmann::json places = nlohmann::json::array();
  for (const auto& candidates : filled.places) {
    nlohmann::json list = nlohmann::json::array();
    for (const train::FilledText::Candidate& candidate : candidates) {
      list.push_back({{"id", candidate.id},
                      {"token", candidate.token},
                      {"probability", number_or_null(candidate.probability)}});
    }
    places.push_back(std::move(list));
  }
  return {{"text", filled.text}, {"places", std::move(places)}};
}

void fill_text(const PredictArguments& arguments) {
  const train::FilledText filled =
      train::fill_masks(arguments.config.load(), arguments.checkpoint, arguments.text);
  if (arguments.json) {
    print_json(to_json(filled));
    return;
  }
  fmt::print("{}\n", filled.text);
  for (std::size_t i = 0; i < filled.places.size(); ++i) {
    fmt::print("{}:", i + 1);
    for (const train::FilledText::Candidate& candidate : filled.places[i]) {
      fmt::print(" {} {}", quote(candidate.token), format_percent(candidate.probability));
    }
    fmt::print("\n");
  }
}

}  // namespace

void add_predict(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("predict", "Apply a checkpoint to files, or fill in a text with it");
  const auto arguments = std::make_shared<PredictArguments>();
  arguments->config.add_to(*command);
  command
      ->add_option("--checkpoint", arguments->checkpoint,
                   "A checkpoint's folder, or a run's: its newest intact checkpoint")
      ->required()
      ->type_name("DIR");
  CLI::Option* input =
      command
          ->add_option("--input", arguments->inputs,
                       "Images (JPEG, PNG), .npy arrays or CSV tables, prepared as the test set is")
          ->type_name("FILE");
  CLI::Option* fill =
      command
          ->add_option(
              "--fill", arguments->text,
              "A text with [MASK], or what data.mask_token is, in place of each token that "
              "bert fills in")
          ->type_name("TEXT");
  input->excludes(fill);
  add_json_flag(*command, arguments->json);
  command->footer(
      "Examples:\n"
      "  concord predict run.toml --checkpoint runs/run --input shoe.png\n"
      "  concord predict run.toml --checkpoint runs/run --input *.npy --json\n"
      "  concord predict run.toml --checkpoint runs/run --fill \"In the [MASK] was the Word\"");
  command->callback([arguments, input, fill] {
    if (fill->count() > 0) {
      fill_text(*arguments);
    } else if (input->count() > 0) {
      predict_from_files(*arguments);
    } else {
      throw CLI::RequiredError("one of --input and --fill");
    }
  });
}

}  // namespace concord::cli

// concord predict: a checkpoint applied to files.
#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "concord/cli/command.h"
#include "concord/cli/units.h"
#include "concord/train/trainer.h"

namespace concord::cli {
namespace {

struct PredictArguments {
  ConfigArguments config;
  std::string checkpoint;
  std::vector<std::string> inputs;
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

void run_predict(const PredictArguments& arguments) {
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

}  // namespace

void add_predict(CLI::App& app) {
  CLI::App* command = app.add_subcommand("predict", "Apply a checkpoint to files");
  const auto arguments = std::make_shared<PredictArguments>();
  arguments->config.add_to(*command);
  command
      ->add_option("--checkpoint", arguments->checkpoint,
                   "A checkpoint's folder, or a run's: its newest intact checkpoint")
      ->required()
      ->type_name("DIR");
  command
      ->add_option("--input", arguments->inputs,
                   "Images (JPEG, PNG), .npy arrays or CSV tables, prepared as the test set is")
      ->required()
      ->type_name("FILE");
  add_json_flag(*command, arguments->json);
  command->footer(
      "Examples:\n"
      "  concord predict run.toml --checkpoint runs/run --input shoe.png\n"
      "  concord predict run.toml --checkpoint runs/run --input *.npy --json");
  command->callback([arguments] { run_predict(*arguments); });
}

}  // namespace concord::cli

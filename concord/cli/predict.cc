// concord predict: a checkpoint applied to files, or to a text that is to be continued or to have
// tokens filled in.
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <utility>

#include "concord/base/log.h"
#include "concord/base/text.h"
#include "concord/cli/command.h"
#include "concord/cli/units.h"
#include "concord/train/fill_masks.h"
#include "concord/train/generate.h"
#include "concord/train/trainer.h"

namespace concord::cli {
namespace {

struct PredictArguments {
  ConfigArguments config;
  std::string checkpoint;
  std::vector<std::string> inputs;
  train::GenerationRequest text;
  std::string masked_text;
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

// Standard input, without the end of its last line.
std::string read_standard_input() {
  std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

nlohmann::json to_json(const std::string& prompt, const train::Generation& generation) {
  const std::optional<double> speed = generation.tokens_per_second();
  return {{"prompt", prompt},
          {"text", generation.text},
          {"prompt_tokens", generation.prompt_tokens},
          {"tokens", generation.tokens},
          {"prompt_seconds", generation.prompt_seconds},
          {"seconds", generation.seconds},
          {"tokens_per_second", speed ? nlohmann::json(*speed) : nlohmann::json()}};
}

void write_now(std::string_view text) {
  if (!text.empty()) std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void continue_text(const PredictArguments& arguments) {
  const Config config = arguments.config.load();
  train::GenerationRequest request = arguments.text;
  if (request.prompt == "-") request.prompt = read_standard_input();
  if (arguments.json) {
    print_json(to_json(request.prompt, generate(config, arguments.checkpoint, request)));
    return;
  }
  std::string_view unwritten = request.prompt;  // until the request has proved sound
  const auto write_prompt = [&] { write_now(std::exchange(unwritten, {})); };
  const train::Generation generation =
      generate(config, arguments.checkpoint, request, [&](std::string_view text) {
        write_prompt();
        write_now(text);
      });
  write_prompt();
  write_now("\n");
  const std::optional<double> speed = generation.tokens_per_second();
  log("{} after {} of the prompt{}", counted(generation.tokens, "token"), generation.prompt_tokens,
      speed ? fmt::format(", {:.0f} tokens/s", *speed) : "");
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
      train::fill_masks(arguments.config.load(), arguments.checkpoint, arguments.masked_text);
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
      app.add_subcommand("predict", "Apply a checkpoint to files, or continue or fill in a text");
  const auto arguments = std::make_shared<PredictArguments>();
  train::GenerationRequest& text = arguments->text;
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
  CLI::Option* prompt =
      command
          ->add_option("--prompt", text.prompt,
                       "The beginning of a text that a language model continues; - reads it from "
                       "standard input")
          ->type_name("TEXT");
  CLI::Option* tokens = command->add_option("--tokens", text.tokens, "How many tokens follow")
                            ->type_name("N")
                            ->check(CLI::Range(1, 1000000))
                            ->capture_default_str();
  CLI::Option* temperature =
      command
          ->add_option("--temperature", text.temperature,
                       "Below 1 likely tokens become likelier; 0: always the likeliest")
          ->type_name("T")
          ->capture_default_str();
  CLI::Option* top_k =
      command->add_option("--top-k", text.top_k, "Choose among the K likeliest tokens alone")
          ->type_name("K");
  CLI::Option* seed = command->add_option("--seed", text.seed, "Of the choice of tokens")
                          ->type_name("N")
                          ->check(CLI::Range(std::int64_t{0}, std::int64_t{0xffffffff}))
                          ->capture_default_str();
  for (CLI::Option* option : {tokens, temperature, top_k, seed}) option->needs(prompt);
  CLI::Option* fill =
      command
          ->add_option(
              "--fill", arguments->masked_text,
              "A text with [MASK], or what data.mask_token is, in place of each token that "
              "bert fills in")
          ->type_name("TEXT");
  input->excludes(prompt);
  input->excludes(fill);
  prompt->excludes(fill);
  add_json_flag(*command, arguments->json);
  command->footer(
      "Examples:\n"
      "  concord predict run.toml --checkpoint runs/run --input shoe.png\n"
      "  concord predict run.toml --checkpoint runs/run --input *.npy --json\n"
      "  concord predict run.toml --checkpoint runs/run --prompt \"In the beginning\" --top-k 40\n"
      "  concord predict run.toml --checkpoint runs/run --fill \"In the [MASK] was the Word\"");
  command->callback([arguments, input, prompt, fill] {
    if (prompt->count() > 0) {
      continue_text(*arguments);
    } else if (fill->count() > 0) {
      fill_text(*arguments);
    } else if (input->count() > 0) {
      predict_from_files(*arguments);
    } else {
      throw CLI::RequiredError("one of --input, --prompt and --fill");
    }
  });
}

}  // namespace concord::cli

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "concord/base/error.h"
#include "concord/base/log.h"
#include "concord/base/text.h"
#include "concord/cli/command.h"

namespace concord::cli {
namespace {

// The subcommand that the words name, as far as they do.
const CLI::App& named_command(const CLI::App& app) {
  const CLI::App* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
  return *command;
}

std::string full_name(const CLI::App& command) {
  if (command.get_parent() == nullptr) return "concord";
  return full_name(*command.get_parent()) + " " + command.get_name();
}

std::string listed_commands(const CLI::App& command) {
  std::string text;
  for (const CLI::App* known : shown_commands(command)) {
    text += (text.empty() ? "" : ", ") + known->get_name();
  }
  return text;
}

std::string unknown_word(const CLI::App& command, const std::string& word) {
  const bool option = word.starts_with("-");
  std::vector<std::string> names;
  if (option) {
    for (const CLI::Option* known : command.get_options()) {
      for (const std::string& name : known->get_lnames()) names.push_back("--" + name);
    }
  } else {
    for (const CLI::App* known : shown_commands(command)) names.push_back(known->get_name());
  }
  const std::string what = option          ? "unknown option"
                           : names.empty() ? "unexpected argument"
                                           : "unknown command";
  if (names.empty()) return fmt::format("{} {}", what, quote(shortened(word)));
  const std::vector<std::string_view> candidates(names.begin(), names.end());
  return fmt::format("{} {}; did you mean {}?", what, quote(shortened(word)),
                     quote(nearest(word, candidates)));
}

std::string usage_message(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = named_command(app);
  std::vector<std::string> rest = app.remaining(true);
  std::erase(rest, "--");
  if (!rest.empty()) return unknown_word(command, rest.front());
  if (!command.get_subcommands({}).empty()) {
    return fmt::format("expected one of the commands {}", listed_commands(command));
  }
  std::string message = error.what();
  std::ranges::replace(message, '\n', ' ');
  return message;
}

}  // namespace

std::vector<const CLI::App*> shown_commands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* command) { return !command->get_group().empty(); });
}

std::unique_ptr<CLI::App> make_app() {
  auto app = std::make_unique<CLI::App>(
      "Trains neural networks in parallel. Commands print help and examples with --help.",
      "concord");
  app->set_version_flag("--version", "concord " CONCORD_VERSION);
  app->set_help_flag("-h,--help", "Print this help and exit");
  app->require_subcommand(1);
  app->get_formatter()->label("SUBCOMMAND", "COMMAND");
  app->get_formatter()->label("Subcommands", "Commands");
  add_train(*app);
  add_launch(*app);
  add_preflight(*app);
  add_eval(*app);
  add_predict(*app);
  add_info(*app);
  add_plan(*app);
  add_tokenize(*app);
  add_bench(*app);
  add_simulate(*app);
  add_trace(*app);
  add_doctor(*app);
  add_completion(*app);
  app->footer(
      "Example:\n"
      "  concord train examples/fashion_mnist.toml\n"
      "  concord eval examples/fashion_mnist.toml --checkpoint runs/fashion_mnist\n"
      "\n"
      "The configuration's keys: docs/configuration.md. The commands: man concord.");
  return app;
}

// Descriptors 0 to 2 that came closed are opened on /dev/null: a file opened later would take their
// numbers, and messages would be written into it. A file that hits the size limit is an error of
// the write, not a signal.
void secure_standard_streams() {
  std::signal(SIGXFSZ, SIG_IGN);
  for (int descriptor = ::open("/dev/null", O_RDWR); descriptor >= 0;
       descriptor = ::dup(descriptor)) {
    if (descriptor <= 2) continue;
    ::close(descriptor);
    return;
  }
}

void parse(CLI::App& app, std::vector<std::string> words) {
  std::ranges::reverse(words);  // as CLI11 takes them
  try {
    app.parse(std::move(words));
  } catch (const CLI::Success& wanted) {  // --help, --version
    throw Exit(app.exit(wanted));
  } catch (const CLI::ParseError& error) {
    log("{}\ntry \"{} --help\"", usage_message(app, error), full_name(named_command(app)));
    throw Exit(2);
  }
}

int run(int argc, char** argv) {
  secure_standard_streams();
  const std::unique_ptr<CLI::App> app = make_app();
  try {
    try {
      parse(*app, {argv + std::min(argc, 1), argv + argc});
    } catch (const Exit& exit) {
      if (exit.code != 0) return exit.code;
    }
    if (std::fflush(stdout) != 0) fail("cannot write to standard output: {}", std::strerror(errno));
    return 0;
  } catch (const std::bad_alloc&) {
    log("out of memory; a smaller train.microbatch, and a smaller data.prefetch, need less");
    return 1;
  } catch (const std::exception& error) {
    log("{}", error.what());
    return 1;
  }
}

void ConfigArguments::add_to(CLI::App& command) {
  command.add_option("CONFIG.toml", file, "The run's configuration, a TOML file")
      ->required()
      ->type_name("");
  command
      .add_option("--plan", plan, "How ranks divide the model, as concord plan show --out saves it")
      ->type_name("FILE");
  command
      .add_option("--set", overrides,
                  "Override a key of the configuration; may be given several times")
      ->type_name("SECTION.KEY=VALUE")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
}

std::vector<std::string> ConfigArguments::words() const {
  std::vector<std::string> words = {file};
  if (!plan.empty()) words.insert(words.end(), {"--plan", plan});
  for (const std::string& text : overrides) words.insert(words.end(), {"--set", text});
  return words;
}

void add_json_flag(CLI::App& command, bool& json) {
  command.add_flag("--json", json, "Print the result as one JSON object on one line");
}

void print_json(const nlohmann::json& result) {
  // Names of files and classes may hold any bytes.
  fmt::print("{}\n", result.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

nlohmann::json number_or_null(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr);
}

nlohmann::json accuracy_or_null(double accuracy) {
  return accuracy < 0 ? nlohmann::json(nullptr) : number_or_null(accuracy);
}

}  // namespace concord::cli

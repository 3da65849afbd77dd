// concord train: trains as the configuration says.
#include <fmt/core.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <ctime>
#include <memory>
#include <optional>
#include <string_view>

#include "concord/base/log.h"
#include "concord/cli/command.h"
#include "concord/cli/progress.h"
#include "concord/cli/ranks.h"
#include "concord/cli/results.h"
#include "concord/net/member.h"
#include "concord/net/process.h"
#include "concord/train/trainer.h"

namespace concord::cli {
namespace {

struct TrainArguments {
  ConfigArguments config;
  int ranks = 1;
  bool resume = false;
  bool json = false;
  bool quiet = false;
};

std::atomic<bool> stop_requested = false;
static_assert(std::atomic<bool>::is_always_lock_free, "set by a signal handler");

// Set before signals are handled.
bool says_that_it_stops = true;
int deaf_seconds = 0;  // after the first signal

// The first signal asks for a stop; the next one takes the default action, which ends the process.
void request_stop(int signal) {
  static timespec first;
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (!stop_requested.exchange(true)) {
    first = now;
    if (!says_that_it_stops) return;
    constexpr std::string_view kSaid =
        "\nconcord: finishing this step and saving; a second signal stops at once\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, kSaid.data(), kSaid.size());
  } else if (now.tv_sec - first.tv_sec >= deaf_seconds) {
    std::signal(signal, SIG_DFL);
    raise(signal);
  }
}

void handle_signals(const comm::Communicator* ranks) {
  if (ranks != nullptr) {
    says_that_it_stops = ranks->is_first();
    deaf_seconds = 2;  // it may be told twice, by who started it and by who told that one
  }
  for (const int signal : {SIGINT, SIGTERM}) {
    // A parent that had it ignored meant it.
    if (std::signal(signal, request_stop) == SIG_IGN) std::signal(signal, SIG_IGN);
  }
  std::signal(SIGPIPE, SIG_IGN);  // whoever read the progress is gone; training goes on
}

std::string resume_command(const ConfigArguments& arguments, int ranks) {
  std::string command = "concord train";
  for (const std::string& word : arguments.words()) command += " " + net::shell_word(word);
  if (ranks > 1) command += fmt::format(" --ranks {}", ranks);
  return command + " --resume";
}

// With --quiet: warnings, and nothing else.
class QuietObserver : public train::TrainObserver {
  void message(const std::string& text) override { log("{}", text); }
};

void launch_training(const TrainArguments& arguments, const Config& config) {
  std::vector<std::string> words = {"train"};
  for (const std::string& word : arguments.config.words()) words.push_back(word);
  if (arguments.resume) words.emplace_back("--resume");
  if (arguments.quiet) words.emplace_back("--quiet");
  if (arguments.json) words.emplace_back("--json");
  RanksArguments{.ranks = arguments.ranks}.launch(words, config.output.dir);
}

void run_train(const TrainArguments& arguments) {
  const Config config = arguments.config.load();
  if (arguments.ranks > 1) return launch_training(arguments, config);
  const JoinedRanks joined = join_ranks(config.parallel);
  comm::Communicator* const ranks = joined.communicator.get();
  handle_signals(ranks);
  const train::TrainRequest request{
      .resume = arguments.resume, .stop = &stop_requested, .ranks = ranks};

  train::Summary summary;
  const auto train_and_tell = [&](train::TrainObserver& observer) {
    summary = joined.run([&] {
      return arguments.config.naming_plan([&] { return train::train(config, request, observer); });
    });
  };
  if (ranks != nullptr && !ranks->is_first()) {
    train::TrainObserver silent;
    return train_and_tell(silent);
  }
  if (arguments.quiet) {
    QuietObserver quiet;
    train_and_tell(quiet);
  } else {
    ProgressObserver progress({.terminal = net::shown_on_terminal(),
                               .log_every = config.train.log_every,
                               .job = joined.description});
    train_and_tell(progress);
  }
  if (summary.interrupted) {
    log("stopped after step {} and saved; to continue: {}", summary.step,
        resume_command(arguments.config, ranks == nullptr ? 1 : ranks->size()));
  }
  if (arguments.json) {
    print_json(to_json(summary));
  } else {
    fmt::print("{}", format_summary(summary));
  }
}

}  // namespace

void add_train(CLI::App& app) {
  CLI::App* command = app.add_subcommand("train", "Train a model");
  const auto arguments = std::make_shared<TrainArguments>();
  arguments->config.add_to(*command);
  command
      ->add_option("--ranks", arguments->ranks,
                   "Train on so many processes of this machine, each with its share of the cores")
      ->type_name("N")
      ->check(CLI::Range(1, 256));
  command->add_flag("--resume", arguments->resume,
                    "Continue from the newest intact checkpoint of output.dir");
  command->add_flag("--quiet", arguments->quiet, "Print no progress, only the result");
  add_json_flag(*command, arguments->json);
  command->footer(
      "Ctrl-C (SIGINT) or SIGTERM finishes the step, saves a checkpoint and ends with exit code "
      "0;\n"
      "a second one ends at once.\n"
      "\n"
      "Examples:\n"
      "  concord train run.toml\n"
      "  concord train run.toml --set train.epochs=3 --set optimizer.learning_rate=0.1\n"
      "  concord train run.toml --ranks 4\n"
      "  concord train run.toml --resume\n"
      "  concord train run.toml --quiet --json");
  command->callback([arguments] { run_train(*arguments); });
}

}  // namespace concord::cli

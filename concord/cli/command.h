// The command `concord`: one file for each of its commands, which adds itself to the tree below.
//
// Conventions. Results go to standard output, everything else to standard error. With --json the
// last line of standard output is one JSON object. Exit codes: 0 done (also after a stop that was
// asked for), 1 an Error, 2 a usage error.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/error.h"
#include "concord/parallel/plan.h"
#include "concord/train/config.h"

namespace concord::cli {

// Ends a command that has said all there is to say, with this exit code.
struct Exit {
  explicit Exit(int exit_code) : code(exit_code) {}
  int code;
};

// The whole tree of commands; parsing runs the one that is named.
std::unique_ptr<CLI::App> make_app();

// The commands below `app` but for those that Concord alone calls.
std::vector<const CLI::App*> shown_commands(const CLI::App& app);

// Parses the words and runs the command that they name. Throws Exit after help, and after words
// that are not understood, which it reports.
void parse(CLI::App& app, std::vector<std::string> words);

// Parses, runs, reports errors, and returns the exit code.
int run(int argc, char** argv);

void add_train(CLI::App& app);
void add_launch(CLI::App& app);
void add_preflight(CLI::App& app);
void add_eval(CLI::App& app);
void add_predict(CLI::App& app);
void add_info(CLI::App& app);
void add_plan(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_bench(CLI::App& app);
void add_simulate(CLI::App& app);
void add_bench_collective(CLI::App& bench);
void add_bench_codec(CLI::App& bench);
void add_trace(CLI::App& app);
void add_doctor(CLI::App& app);
void add_completion(CLI::App& app);

// What every command that reads a configuration takes.
struct ConfigArguments {
  std::string file;
  std::string plan;                    // a file; empty: none
  std::vector<std::string> overrides;  // "section.key=value"

  void add_to(CLI::App& command);
  // As they were given: for a command line that says the same.
  std::vector<std::string> words() const;
  Config load() const { return load_config(file, overrides, plan); }
  // What `work` returns, which does something with that configuration: where the model and the plan
  // do not go together, the error names the plan's file. Of ranks each calls it within
  // JoinedRanks::run, so that what they tell each other names it, too.
  template <typename Work>
  auto naming_plan(Work work) const {
    try {
      return work();
    } catch (const parallel::PlanError& error) {
      if (plan.empty()) throw;  // its wishes came with the configuration
      fail("{}: {}", plan, error.what());
    }
  }
};

void add_json_flag(CLI::App& command, bool& json);

// One line on standard output.
void print_json(const nlohmann::json& result);

// A number, or null where it does not apply (negative accuracy) or is not finite.
nlohmann::json number_or_null(double value);
nlohmann::json accuracy_or_null(double accuracy);

}  // namespace concord::cli

// concord simulate: how long a step would take on ranks that need not be there.
#include <fmt/core.h>

#include "concord/base/parallel.h"
#include "concord/cli/command.h"
#include "concord/cli/ranks.h"
#include "concord/cli/units.h"
#include "concord/formats/trace_file.h"
#include "concord/train/cluster_file.h"
#include "concord/train/job.h"
#include "concord/train/simulator.h"

namespace concord::cli {
namespace {

struct SimulateArguments {
  ConfigArguments config;
  std::string cluster, trace;
  int ranks = 0;
  int runs = train::SimulationOptions().runs;
  bool checked = false, json = false;
};

std::vector<std::string> words_of(const SimulateArguments& arguments) {
  std::vector<std::string> words = {"simulate"};
  for (const std::string& word : arguments.config.words()) words.push_back(word);
  if (arguments.ranks > 0) {
    words.insert(words.end(), {"--ranks", std::to_string(arguments.ranks)});
  }
  if (!arguments.cluster.empty()) words.insert(words.end(), {"--cluster", arguments.cluster});
  if (!arguments.trace.empty()) words.insert(words.end(), {"--trace", arguments.trace});
  words.insert(words.end(), {"--runs", std::to_string(arguments.runs)});
  if (arguments.checked) words.emplace_back("--check");
  if (arguments.json) words.emplace_back("--json");
  return words;
}

nlohmann::json to_json(const train::SimulatedJob& job) {
  nlohmann::json ranks = nlohmann::json::array();
  for (const train::SimulatedRanks& of : job.of_ranks) {
    ranks.push_back({{"first", of.first},
                     {"ranks", of.ranks},
                     {"compute_seconds", of.compute_seconds},
                     {"waited_seconds", of.waited_seconds}});
  }
  nlohmann::json json = {{"ranks", job.ranks},
                         {"step_seconds", job.step_seconds},
                         {"samples_per_second", static_cast<double>(job.batch) / job.step_seconds},
                         {"measured_ops", job.measured_ops},
                         {"measuring_seconds", job.measuring_seconds},
                         {"simulating_seconds", job.simulating_seconds},
                         {"of_ranks", std::move(ranks)}};
  if (job.measured_step_seconds > 0) {
    json["measured_step_seconds"] = job.measured_step_seconds;
    json["error"] = job.error;
  }
  return json;
}

void print_text(const train::SimulatedJob& job) {
  fmt::print(
      "step             {}\n"
      "samples          {}/s\n"
      "simulated        {} in {}; {} measured in {}\n\n",
      format_duration(job.step_seconds),
      format_count(static_cast<double>(job.batch) / job.step_seconds), counted(job.ranks, "rank"),
      format_duration(job.simulating_seconds),
      counted(static_cast<std::int64_t>(job.measured_ops), "kind of op", "kinds of ops"),
      format_duration(job.measuring_seconds));
  if (job.measured_step_seconds > 0) {
    fmt::print("measured         {}, median of the steps taken: the simulator is off by {}\n\n",
               format_duration(job.measured_step_seconds), format_percent(job.error));
  }
  fmt::print("{:<12} {:>8} {:>12} {:>12}\n", "rank", "alike", "computes", "waits");
  for (const train::SimulatedRanks& of : job.of_ranks) {
    fmt::print("{:<12} {:>8} {:>12} {:>12}\n", of.first, of.ranks,
               format_duration(of.compute_seconds), format_duration(of.waited_seconds));
  }
}

std::optional<parallel::Cluster> cluster_of(const SimulateArguments& arguments) {
  if (arguments.cluster.empty()) return std::nullopt;
  return train::read_cluster(arguments.cluster);
}

void simulate(const SimulateArguments& arguments, const Config& config, int ranks,
              comm::Communicator* local) {
  const std::optional<parallel::Cluster> cluster = cluster_of(arguments);
  const train::SimulatedJob job = arguments.config.naming_plan([&] {
    return train::simulate_job(config, {.ranks = ranks,
                                        .cluster = cluster ? &*cluster : nullptr,
                                        .local = local,
                                        .runs = arguments.runs,
                                        .checked = arguments.checked,
                                        .traced = !arguments.trace.empty()});
  });
  if (local != nullptr && !local->is_first()) return;
  if (!arguments.trace.empty()) formats::write_trace(arguments.trace, job.trace);
  if (arguments.json) {
    print_json(to_json(job));
  } else {
    print_text(job);
  }
}

void run_simulate(const SimulateArguments& arguments) {
  const Config config = arguments.config.load();
  const int ranks = arguments.ranks > 0 ? arguments.ranks : train::ranks_of_mesh(config.parallel);
  const JoinedRanks joined = join_ranks(config.parallel);
  if (joined.communicator != nullptr) {
    return joined.run([&] { simulate(arguments, config, ranks, joined.communicator.get()); });
  }
  const std::optional<parallel::Cluster> cluster = cluster_of(arguments);
  if (arguments.checked && cluster) {
    fail("--check takes steps with all ranks on this machine, and --cluster puts them elsewhere");
  }
  const int local = arguments.checked
                        ? ranks
                        : train::measuring_ranks(cluster ? &*cluster : nullptr, ranks,
                                                 static_cast<int>(config.train.threads));
  if (local == 1) return simulate(arguments, config, ranks, nullptr);
  RanksArguments measuring;
  measuring.ranks = local;
  measuring.launch(words_of(arguments), "");
}

}  // namespace

void add_simulate(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("simulate", "Tell how long a step would take on other ranks");
  const auto arguments = std::make_shared<SimulateArguments>();
  arguments->config.add_to(*command);
  command->add_option("-n,--ranks", arguments->ranks, "How many ranks there are to be")
      ->type_name("N")
      ->check(CLI::Range(1, 65536));
  command
      ->add_option("--cluster", arguments->cluster,
                   "A file that says which hosts they are on, and how these are linked; without it "
                   "all are on this machine")
      ->type_name("CLUSTER.toml");
  command->add_option("--runs", arguments->runs, "How often each op is measured")
      ->type_name("N")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_flag(
      "--check", arguments->checked,
      "Also take as many steps, with all ranks on this machine, in turns with what is "
      "measured, and tell the difference");
  command->add_option("--trace", arguments->trace, "Also write the step as a trace")
      ->type_name("FILE");
  add_json_flag(*command, arguments->json);
  command->footer(
      "The programs of the ranks are interpreted on a virtual clock. What their ops cost is\n"
      "measured here, once for each kind, with as many ranks at once as a host of the job has.\n"
      "\n"
      "Examples:\n"
      "  concord simulate run.toml --ranks 2\n"
      "  concord simulate run.toml --ranks 1024 --cluster cluster.toml --json\n"
      "  concord simulate run.toml --ranks 2 --set parallel.mesh.pipe=2 --trace step.json");
  command->callback([arguments] { run_simulate(*arguments); });
}

}  // namespace concord::cli

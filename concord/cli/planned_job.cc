#include "concord/cli/planned_job.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "concord/base/parallel.h"
#include "concord/cli/units.h"
#include "concord/parallel/traffic.h"

namespace concord::cli {
namespace {

// With a rank's share of this machine's cores, on which its workspace depends, where nothing else
// is asked for.
Config of_rank(Config config, int ranks) {
  if (config.train.threads == 0) config.train.threads = std::max(1, available_cores() / ranks);
  return config;
}

}  // namespace

PlannedJob::PlannedJob(const Config& config, int ranks)
    : ranks_(0, ranks == 0 ? train::ranks_of_mesh(config.parallel) : ranks,
             train::shares_memory(config.parallel)),
      job_(train::open_job(of_rank(config, ranks_.size()), {}, &ranks_, /*only_planned=*/true)) {}

void add_planned_ranks(CLI::App& command, int& ranks) {
  command.add_option("--ranks", ranks, "How many ranks there are to be; none are started")
      ->type_name("N")
      ->check(CLI::Range(1, 65536));
}

namespace {

// The nodes that are steps. A gather of what all ranks write to one place is none.
std::set<NodeId> nodes_run(const Program& program) {
  std::set<NodeId> nodes;
  for (const auto* steps : {&program.prologue, &program.microbatch, &program.update}) {
    for (const ProgramStep& step : *steps) nodes.insert(step.node);
  }
  return nodes;
}

}  // namespace

nlohmann::json describe_collectives(const train::Engine& engine) {
  struct Sum {
    double times = 0, bytes = 0;
  };
  std::map<std::tuple<std::string, std::string, bool>, Sum> sums;
  const Program& program = engine.training_program();
  const std::set<NodeId> run = nodes_run(program);
  for (const parallel::Traffic& one : parallel::traffic_of(program.graph)) {
    const bool is_sum = one.is_of_leaf_sum && one.axis == parallel::kDataAxis;
    if (!is_sum && !run.contains(one.node)) continue;
    // In rounds a leaf is a microbatch, and its gradients are added up behind it.
    const bool repeats = is_sum ? program.in_rounds : one.phase == Phase::kMicrobatch;
    const double times = repeats ? engine.microbatches_of_rank() : 1;
    Sum& sum = sums[{one.axis, one.op, repeats}];
    sum.times += times;
    sum.bytes += times * one.bytes;
  }
  nlohmann::json collectives = nlohmann::json::array();
  for (const auto& [key, sum] : sums) {
    const auto& [axis, op, repeats] = key;
    collectives.push_back({{"axis", axis},
                           {"op", op},
                           {"of", repeats ? "microbatches" : "step"},
                           {"count", sum.times},
                           {"bytes_sent", sum.bytes}});
  }
  return collectives;
}

void print_collectives(const nlohmann::json& collectives) {
  if (collectives.empty()) return fmt::print("nothing is sent\n");
  fmt::print("{:<8} {:<15} {:<13} {:>9}  sent by a rank in a step\n", "axis", "collective",
             "of the", "times");
  for (const nlohmann::json& one : collectives) {
    fmt::print("{:<8} {:<15} {:<13} {:>9}  {}\n", one["axis"].get<std::string>(),
               one["op"].get<std::string>(), one["of"].get<std::string>(),
               one["count"].get<double>(), format_bytes(one["bytes_sent"].get<double>()));
  }
}

}  // namespace concord::cli

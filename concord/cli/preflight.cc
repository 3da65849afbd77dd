// concord preflight: whether the ranks of a job reach each other, and how fast.
#include "concord/net/preflight.h"

#include <fmt/core.h>

#include <algorithm>
#include <optional>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/log.h"
#include "concord/cli/command.h"
#include "concord/cli/ranks.h"
#include "concord/cli/units.h"
#include "concord/net/join.h"
#include "concord/train/measured_cluster.h"

namespace concord::cli {
namespace {

struct PreflightArguments {
  RanksArguments ranks;
  std::string cluster;
  bool json = false;
};

std::string name_of(const net::Membership& job, int rank) {
  return fmt::format("rank {} on {}", rank, job.hosts[static_cast<std::size_t>(rank)]);
}

void print_table(const net::Membership& job, const std::vector<net::Way>& ways) {
  fmt::print("{}\n\n", job.description());
  std::size_t width = 4;
  for (int rank = 0; rank < job.size; ++rank) width = std::max(width, name_of(job, rank).size());
  fmt::print("{:<{}}  {:<{}}  {:>10}  {:>12}\n", "from", width, "to", width, "latency",
             "bandwidth");
  for (const net::Way& way : ways) {
    fmt::print("{:<{}}  {:<{}}  ", name_of(job, way.from), width, name_of(job, way.to), width);
    if (way.error.empty()) {
      fmt::print("{:>7.0f} us  {:>9}B/s\n", 1e6 * way.latency_seconds,
                 format_count(way.bytes_per_second));
    } else {
      fmt::print("{:>10}\n", "blocked");
    }
  }
}

nlohmann::json to_json(const net::Membership& job, const std::vector<net::Way>& ways) {
  nlohmann::json list = nlohmann::json::array();
  for (const net::Way& way : ways) {
    const bool open = way.error.empty();
    list.push_back(
        {{"from", way.from},
         {"to", way.to},
         {"latency_seconds", open ? nlohmann::json(way.latency_seconds) : nullptr},
         {"bandwidth_bytes_per_second", open ? nlohmann::json(way.bytes_per_second) : nullptr},
         {"error", open ? nlohmann::json(nullptr) : nlohmann::json(way.error)}});
  }
  return {{"ranks", job.size}, {"launcher", job.launcher}, {"hosts", job.hosts}, {"ways", list}};
}

void run_preflight(const PreflightArguments& arguments) {
  if (arguments.ranks.are_given()) {
    std::vector<std::string> words = {"preflight"};
    if (arguments.json) words.emplace_back("--json");
    if (!arguments.cluster.empty()) words.insert(words.end(), {"--cluster", arguments.cluster});
    return arguments.ranks.launch(words, "");
  }
  constexpr double kTimeoutSeconds = 60;
  const std::optional<net::Membership> job = net::join_job(kTimeoutSeconds);
  if (!job) {
    fail("preflight tries the ways between ranks, and there is one rank: give --ranks or --hosts");
  }
  const std::vector<net::Way> ways = net::try_all_ways(*job);
  if (job->rank > 0) return;
  if (arguments.json) {
    print_json(to_json(*job, ways));
  } else {
    print_table(*job, ways);
  }
  const auto is_blocked = [](const net::Way& way) { return !way.error.empty(); };
  for (const net::Way& way : ways) {
    if (is_blocked(way)) {
      log("{} does not reach {}: {}", name_of(*job, way.from), name_of(*job, way.to), way.error);
    }
  }
  if (std::ranges::any_of(ways, is_blocked)) throw Exit(1);
  if (arguments.cluster.empty()) return;
  write_file_atomically(arguments.cluster,
                        train::measured_cluster_file(job->hosts, job->host_numbers, ways));
}

}  // namespace

void add_preflight(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("preflight", "Try the ways between the ranks of a job to be");
  const auto arguments = std::make_shared<PreflightArguments>();
  arguments->ranks.add_to(*command);
  command
      ->add_option(
          "--cluster", arguments->cluster,
          "Also write the hosts and what links them as a file for concord simulate, on the "
          "host of the first rank")
      ->type_name("CLUSTER.toml");
  add_json_flag(*command, arguments->json);
  command->footer(
      "Each rank connects to each other: latency, bandwidth, and who is not reached. Exit code 1\n"
      "where a way is blocked.\n"
      "\n"
      "Examples:\n"
      "  concord preflight --ranks 2\n"
      "  concord preflight --hosts a:2,b:2 --cluster cluster.toml\n"
      "  mpirun -np 4 concord preflight --json");
  command->callback([arguments] { run_preflight(*arguments); });
}

}  // namespace concord::cli

// concord bench collective: how fast ranks do a collective operation together.
#include <fmt/core.h>

#include "concord/base/error.h"
#include "concord/cli/command.h"
#include "concord/cli/ranks.h"
#include "concord/cli/units.h"
#include "concord/comm/collective_benchmark.h"
#include "concord/comm/join.h"
#include "concord/comm/reduction.h"

namespace concord::cli {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{64} << 30;

struct CollectiveArguments {
  RanksArguments ranks;
  std::string op = "all_reduce";
  std::uint64_t bytes = std::uint64_t{16} << 20;
  std::string transport = "auto", algorithm = "auto";
  int repetitions = 0;
  bool private_memory = false;
  bool json = false;
};

std::vector<std::string> words_of(const CollectiveArguments& arguments) {
  std::vector<std::string> words = {"bench",       "collective",
                                    "--op",        arguments.op,
                                    "--bytes",     std::to_string(arguments.bytes),
                                    "--transport", arguments.transport,
                                    "--algorithm", arguments.algorithm};
  if (arguments.repetitions > 0) {
    words.insert(words.end(), {"--repetitions", std::to_string(arguments.repetitions)});
  }
  if (arguments.private_memory) words.emplace_back("--private-memory");
  if (arguments.json) words.emplace_back("--json");
  return words;
}

nlohmann::json to_json(const CollectiveArguments& arguments, int ranks,
                       const comm::CollectiveBenchmark& result) {
  const double bytes = static_cast<double>(result.bytes);
  return {{"op", arguments.op},
          {"ranks", ranks},
          {"transport", arguments.transport},
          {"algorithm", arguments.algorithm},
          {"bytes", result.bytes},
          {"repetitions", result.repetitions},
          {"seconds", result.seconds},
          {"fastest_seconds", result.fastest_seconds},
          {"slowest_seconds", result.slowest_seconds},
          {"algorithm_bandwidth_bytes_per_second", bytes > 0 ? result.algorithm_bandwidth : 0},
          {"bus_bandwidth_bytes_per_second", bytes > 0 ? result.bus_bandwidth : 0}};
}

void print_text(const CollectiveArguments& arguments, const std::string& job,
                const comm::CollectiveBenchmark& result) {
  fmt::print(
      "{} of {}, {}\n"
      "latency              {} (median of {}; {} to {})\n",
      arguments.op, format_bytes(static_cast<double>(result.bytes)), job,
      format_duration(result.seconds), result.repetitions, format_duration(result.fastest_seconds),
      format_duration(result.slowest_seconds));
  if (result.bytes == 0) return;
  fmt::print(
      "algorithm bandwidth  {}B/s\n"
      "bus bandwidth        {}B/s\n",
      format_count(result.algorithm_bandwidth), format_count(result.bus_bandwidth));
}

void run_collective(const CollectiveArguments& arguments) {
  const comm::CollectiveBenchmarkOptions options{.kind = comm::benchmarked_collective(arguments.op),
                                                 .bytes = arguments.bytes,
                                                 .shared = !arguments.private_memory,
                                                 .repetitions = arguments.repetitions};
  if (arguments.ranks.are_given()) return arguments.ranks.launch(words_of(arguments), "");
  constexpr double kTimeoutSeconds = 60;
  const auto [job, ranks, description] = join_ranks({.transport = arguments.transport,
                                                     .algorithm = arguments.algorithm,
                                                     .timeout_seconds = kTimeoutSeconds});
  if (!job) fail("a collective is what several ranks do, and there is one: give --ranks");
  const comm::CollectiveBenchmark result = comm::benchmark_collective(*ranks, options);
  if (!ranks->is_first()) return;
  if (arguments.json) {
    print_json(to_json(arguments, ranks->size(), result));
  } else {
    print_text(arguments, description, result);
  }
}

}  // namespace

void add_bench_collective(CLI::App& bench) {
  CLI::App* command =
      bench.add_subcommand("collective", "Time what ranks do together, such as an all-reduce");
  const auto arguments = std::make_shared<CollectiveArguments>();
  arguments->ranks.add_to(*command);
  const auto names = [](const std::vector<std::string_view>& known) {
    return CLI::IsMember(std::vector<std::string>(known.begin(), known.end()));
  };
  command->add_option("--op", arguments->op, "The operation")
      ->check(names(comm::benchmarked_collectives()))
      ->type_name("OP")
      ->capture_default_str();
  command
      ->add_option("--bytes", arguments->bytes,
                   "What a rank holds: its numbers to be added, or all that is gathered")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(std::uint64_t{0}, kMostBytes, "at most 64 GiB"))
      ->type_name("SIZE")
      ->capture_default_str();
  command->add_option("--transport", arguments->transport, "What carries it")
      ->check(names(comm::transport_names()))
      ->type_name("NAME")
      ->capture_default_str();
  command->add_option("--algorithm", arguments->algorithm, "How sums are added up")
      ->check(names(comm::algorithm_names()))
      ->type_name("NAME")
      ->capture_default_str();
  command
      ->add_option("--repetitions", arguments->repetitions,
                   "How often it is timed; else as often as a second allows")
      ->type_name("N")
      ->check(CLI::Range(1, 1000000));
  command->add_flag("--private-memory", arguments->private_memory,
                    "In memory that other ranks cannot read where it lies");
  add_json_flag(*command, arguments->json);
  command->footer(
      "The result of the first operation is checked.\n"
      "\n"
      "Examples:\n"
      "  concord bench collective --ranks 2\n"
      "  concord bench collective --op all_gather --ranks 4 --bytes 4KiB --json");
  command->callback([arguments] { run_collective(*arguments); });
}

}  // namespace concord::cli

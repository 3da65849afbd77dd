// concord bench collective: how fast ranks do a collective operation together.
#include <fmt/core.h>

#include <algorithm>

#include "concord/base/error.h"
#include "concord/cli/command.h"
#include "concord/cli/machine.h"
#include "concord/cli/ranks.h"
#include "concord/cli/units.h"
#include "concord/comm/algorithm.h"
#include "concord/comm/collective_benchmark.h"

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
  bool any_order = false;
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
  if (arguments.any_order) words.emplace_back("--any-order");
  if (arguments.json) words.emplace_back("--json");
  return words;
}

// What ran, whatever was asked for.
struct Ran {
  int ranks;
  std::string_view transport, algorithm;
};

nlohmann::json to_json(const CollectiveArguments& arguments, const Ran& ran,
                       const comm::CollectiveBenchmark& result) {
  const double bytes = static_cast<double>(result.bytes);
  return {{"op", arguments.op},
          {"ranks", ran.ranks},
          {"transport", ran.transport},
          {"algorithm", ran.algorithm},
          {"bytes", result.bytes},
          {"repetitions", result.repetitions},
          {"seconds", result.seconds},
          {"fastest_seconds", result.fastest_seconds},
          {"slowest_seconds", result.slowest_seconds},
          {"algorithm_bandwidth_bytes_per_second", bytes > 0 ? result.algorithm_bandwidth : 0},
          {"bus_bandwidth_bytes_per_second", bytes > 0 ? result.bus_bandwidth : 0}};
}

void print_text(const CollectiveArguments& arguments, const Ran& ran, const std::string& job,
                const comm::CollectiveBenchmark& result) {
  fmt::print(
      "{} of {}, {}, {}\n"
      "latency              {} (median of {}; {} to {})\n",
      arguments.op, format_bytes(static_cast<double>(result.bytes)), job, ran.algorithm,
      format_duration(result.seconds), result.repetitions, format_duration(result.fastest_seconds),
      format_duration(result.slowest_seconds));
  if (result.bytes == 0) return;
  fmt::print(
      "algorithm bandwidth  {}B/s\n"
      "bus bandwidth        {}B/s\n",
      format_count(result.algorithm_bandwidth), format_count(result.bus_bandwidth));
}

// Each rank has two buffers.
void check_memory(const CollectiveArguments& arguments, const net::Membership& job) {
  const int host = job.host_numbers[static_cast<std::size_t>(job.rank)];
  const auto ranks = std::ranges::count(job.host_numbers, host);
  const double needed = 2.0 * static_cast<double>(ranks) * static_cast<double>(arguments.bytes);
  const auto free = static_cast<double>(free_memory_bytes());
  if (needed > free) {
    fail("--bytes {}: {} ranks of this machine need {}, of which {} are free; expected fewer bytes",
         arguments.bytes, ranks, format_bytes(needed), format_bytes(free));
  }
}

// What would have no effect is refused.
void check_combination(const CollectiveArguments& arguments, const comm::JoinOptions& how) {
  if (arguments.op == "send" && how.size == 1) {
    fail(
        "--op send goes from rank 0 to the last and back, and there is one rank; expected 2 or "
        "more");
  }
  if (arguments.op != "all_reduce" && (arguments.algorithm != "auto" || arguments.any_order)) {
    fail("--op {} is done in one way: --algorithm and --any-order are for all_reduce",
         arguments.op);
  }
  if (arguments.private_memory && !comm::reads_in_place(how)) {
    fail(
        "--private-memory is for ranks that read each other's memory in place: --transport shm "
        "with --algorithm direct, not {} with {}",
        comm::chosen_transport(how), arguments.algorithm);
  }
}

void run_collective(const CollectiveArguments& arguments) {
  const comm::CollectiveBenchmarkOptions options{.kind = comm::benchmarked_collective(arguments.op),
                                                 .bytes = arguments.bytes,
                                                 .shared = !arguments.private_memory,
                                                 .repetitions = arguments.repetitions};
  if (arguments.ranks.are_given()) return arguments.ranks.launch(words_of(arguments), "");
  constexpr double kTimeoutSeconds = 60;
  const JoinedRanks joined = join_ranks({.transport = arguments.transport,
                                         .algorithm = arguments.algorithm,
                                         .deterministic = !arguments.any_order,
                                         .timeout_seconds = kTimeoutSeconds});
  if (!joined.job) fail("a collective is what several ranks do, and there is one: give --ranks");
  check_combination(arguments, joined.how);
  check_memory(arguments, *joined.job);
  comm::Communicator& ranks = *joined.communicator;
  const comm::CollectiveBenchmark result =
      joined.run([&] { return comm::benchmark_collective(ranks, options); });
  if (!ranks.is_first()) return;
  const std::string transport = comm::chosen_transport(joined.how);
  const Ran ran{ranks.size(), transport,
                comm::chosen_algorithm(joined.how, options.kind, result.bytes)};
  if (arguments.json) {
    print_json(to_json(arguments, ran, result));
  } else {
    print_text(arguments, ran, joined.description, result);
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
  command->add_option("--algorithm", arguments->algorithm, "How an all_reduce is added up")
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
  command->add_flag("--any-order", arguments->any_order,
                    "Sums may be added in any order, as by parallel.deterministic = false");
  add_json_flag(*command, arguments->json);
  command->footer(
      "The result of the first operation is checked.\n"
      "\n"
      "Examples:\n"
      "  concord bench collective --ranks 2\n"
      "  concord bench collective --ranks 4 --transport gloo --algorithm halving_doubling\n"
      "  concord bench collective --op all_gather --ranks 4 --bytes 4KiB --json");
  command->callback([arguments] { run_collective(*arguments); });
}

}  // namespace concord::cli

// concord doctor: what this machine has, how fast it is at best, and what is missing.
#include <fmt/core.h>

#include <cmath>

#include "concord/base/parallel.h"
#include "concord/cli/command.h"
#include "concord/cli/machine.h"
#include "concord/cli/units.h"
#include "concord/kernels/cpu/peak.h"
#include "concord/net/environment.h"

namespace concord::cli {
namespace {

// What could be had and is not, and what that costs: one sentence each.
std::vector<std::string> findings(const Machine& machine) {
  std::vector<std::string> result;
  const std::string& isa = machine.onednn_instructions;
  if (isa == "generic" || isa == "SSE4.1" || isa == "AVX") {
    result.push_back(fmt::format(
        "oneDNN uses {} here: without AVX2 and FMA, training is several times slower", isa));
  }
  if (machine.usable_threads < machine.hardware_threads) {
    result.push_back(
        fmt::format("this process may run on {} of {} hardware threads (its affinity mask, "
                    "OMP_THREAD_LIMIT): the others idle",
                    machine.usable_threads, machine.hardware_threads));
  }
  if (machine.cpu_quota > 0 && machine.cpu_quota < machine.usable_threads) {
    result.push_back(fmt::format(
        "the container may use {:.1f} processors' worth of time: with more threads than that the "
        "kernel halts them in turn; set train.threads = {}",
        machine.cpu_quota, std::max(1.0, std::floor(machine.cpu_quota))));
  }
  if (machine.memory_limit_bytes > 0 && machine.memory_limit_bytes < machine.memory_bytes) {
    result.push_back(fmt::format(
        "the container may use {} of {} of memory: a run that needs more is killed; a smaller "
        "train.microbatch needs less",
        format_bytes(static_cast<double>(machine.memory_limit_bytes)),
        format_bytes(static_cast<double>(machine.memory_bytes))));
  }
  result.push_back(
      "this build has no CUDA: a GPU would not be used; models train on the processor");
  return result;
}

// Whose environment this process is in, where it is a rank.
std::string started_by() {
  const std::optional<net::Placement> placement = net::find_placement();
  if (!placement) return "no launcher of ranks";
  return fmt::format("{}, as rank {} of {}", placement->launcher, placement->rank, placement->size);
}

struct Speeds {
  double flops = 0;      // a second
  double bandwidth = 0;  // bytes a second
};

nlohmann::json to_json(const Machine& machine, const Speeds& speeds) {
  nlohmann::json caches = nlohmann::json::array();
  for (const Cache& cache : machine.caches) {
    caches.push_back({{"level", cache.level}, {"count", cache.count}, {"bytes", cache.bytes}});
  }
  nlohmann::json versions = nlohmann::json::object();
  for (const Library& library : libraries()) versions[library.name] = library.version;
  return {{"version", CONCORD_VERSION},
          {"processor", machine.processor},
          {"packages", machine.packages},
          {"cores", machine.cores},
          {"hardware_threads", machine.hardware_threads},
          {"usable_threads", machine.usable_threads},
          {"cpu_quota", machine.cpu_quota > 0 ? nlohmann::json(machine.cpu_quota) : nullptr},
          {"numa_nodes", machine.numa_nodes},
          {"caches", std::move(caches)},
          {"memory_bytes", machine.memory_bytes},
          {"memory_limit_bytes",
           machine.memory_limit_bytes > 0 ? nlohmann::json(machine.memory_limit_bytes) : nullptr},
          {"vector_instructions", machine.vector_instructions},
          {"onednn_instructions", machine.onednn_instructions},
          {"threads", compute_threads()},
          {"peak_flops_per_second", speeds.flops},
          {"memory_bytes_per_second", speeds.bandwidth},
          {"started_by", started_by()},
          {"libraries", std::move(versions)},
          {"findings", findings(machine)}};
}

void print_text(const Machine& machine, const Speeds& speeds) {
  fmt::print("processor        {}\n",
             machine.processor.empty() ? "name unknown" : machine.processor);
  fmt::print("cores            {} in {} package(s), {} NUMA node(s); {} of {} threads usable\n",
             machine.cores, machine.packages, machine.numa_nodes, machine.usable_threads,
             machine.hardware_threads);
  for (const Cache& cache : machine.caches) {
    fmt::print("cache L{}         {} of {}\n", cache.level, cache.count,
               format_bytes(static_cast<double>(cache.bytes)));
  }
  fmt::print("memory           {}\n", format_bytes(static_cast<double>(machine.memory_bytes)));
  fmt::print("instructions     {} in Concord's kernels, {} in oneDNN's\n",
             machine.vector_instructions, machine.onednn_instructions);
  fmt::print("peak             {}FLOP/s of f32 FMA ({})\n", format_count(speeds.flops),
             counted(compute_threads(), "thread"));
  fmt::print("memory speed     {}B/s (a = b + s c)\n", format_count(speeds.bandwidth));
  fmt::print("started by       {}\n", started_by());
  fmt::print("\nlibraries\n");
  for (const Library& library : libraries()) {
    fmt::print("  {:<14} {}\n", library.name, library.version);
  }
  fmt::print("\nmissing\n");
  for (const std::string& finding : findings(machine)) fmt::print("  {}\n", finding);
}

}  // namespace

void add_doctor(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("doctor", "Examine this machine: hardware, libraries, speed");
  const auto json = std::make_shared<bool>(false);
  add_json_flag(*command, *json);
  command->footer(
      "Measures for about a second with all cores; other work on the machine shows in the "
      "numbers.\n"
      "\n"
      "Examples:\n"
      "  concord doctor\n"
      "  concord doctor --json");
  command->callback([json] {
    set_compute_threads(0);
    const Machine machine = describe_machine();
    const Speeds speeds{.flops = cpu::measure_peak_flops(),
                        .bandwidth = cpu::measure_memory_bandwidth(machine.cache_bytes())};
    if (*json) {
      print_json(to_json(machine, speeds));
    } else {
      print_text(machine, speeds);
    }
  });
}

}  // namespace concord::cli

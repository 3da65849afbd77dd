// concord info: what a configuration asks for, before anything is trained.
#include <fmt/core.h>

#include <algorithm>

#include "concord/cli/command.h"
#include "concord/cli/planned_job.h"
#include "concord/cli/stages.h"
#include "concord/cli/units.h"

namespace concord::cli {
namespace {

struct InfoArguments {
  ConfigArguments config;
  int ranks = 0;
  bool json = false;
  bool program = false;
};

// Of one type of state, in the order of the model.
std::vector<const StateStore::Entry*> states_of(train::Engine& engine, State::Role role) {
  std::vector<const StateStore::Entry*> found;
  for (const StateStore::Entry& entry : engine.states().entries()) {
    if (entry.role == role) found.push_back(&entry);
  }
  return found;
}

std::int64_t elements(const std::vector<const StateStore::Entry*>& entries) {
  std::int64_t count = 0;
  for (const StateStore::Entry* entry : entries) count += entry->type.shape.elements();
  return count;
}

// What rank 0 holds of them.
std::int64_t own_elements(const std::vector<const StateStore::Entry*>& entries) {
  std::int64_t count = 0;
  for (const StateStore::Entry* entry : entries) {
    if (!entry->is_here()) continue;
    count += entry->is_flat() ? entry->flat->part : entry->part.shape.elements();
  }
  return count;
}

double flops_of_rank(const train::Engine& engine) {
  const Program& program = engine.training_program();
  const auto sum = [](const std::vector<ProgramStep>& steps) {
    double flops = 0;
    for (const ProgramStep& step : steps) flops += step.flops;
    return flops;
  };
  return sum(program.prologue) + sum(program.update) +
         sum(program.microbatch) * engine.microbatches_of_rank();
}

nlohmann::json describe_memory(const train::MemoryReport& memory) {
  return {{"process", memory.process},
          {"states", memory.states},
          {"common_states", memory.common_states},
          {"offloaded", memory.offloaded},
          {"gradients", memory.gradients},
          {"workspace", memory.workspace},
          {"communication", memory.communication},
          {"loaders", memory.loaders},
          {"checkpoint", memory.checkpoint},
          {"of_others", memory.of_others},
          {"opening", memory.opening},
          {"peak", memory.peak()}};
}

nlohmann::json describe(const Config& config, const train::Job& job) {
  train::Engine& engine = *job.engine;
  const Program& program = engine.training_program();
  nlohmann::json parameters = nlohmann::json::array();
  for (const StateStore::Entry* entry : states_of(engine, State::Role::kParameter)) {
    parameters.push_back({{"name", entry->name},
                          {"shape", entry->type.shape.dims()},
                          {"dtype", to_string(entry->type.dtype)}});
  }
  const double flops = engine.flops_per_step();
  return {{"model", config.model.name},
          {"loss", config.model.loss},
          {"parameters", std::move(parameters)},
          {"parameter_count", engine.parameter_count()},
          {"statistic_count", elements(states_of(engine, State::Role::kStatistic))},
          {"optimizer_state_count", elements(states_of(engine, State::Role::kOptimizer))},
          {"batch", engine.batch()},
          {"leaves", engine.leaves()},
          {"microbatch", engine.microbatch_size()},
          {"precision", to_string(engine.precision())},
          {"flops_per_sample", flops / static_cast<double>(engine.batch())},
          {"flops_per_step", flops},
          {"state_bytes", engine.states().bytes()},
          {"gradient_bytes", program.in_rounds ? program.totals_bytes : program.sums_bytes},
          {"arena_bytes", program.arena_bytes},
          {"arena_lower_bound_bytes", program.arena_lower_bound},
          {"workspace_bytes", engine.workspace_bytes()},
          {"memory", describe_memory(job.memory)},
          {"ranks", engine.ranks().size()},
          {"rank_parameter_count", own_elements(states_of(engine, State::Role::kParameter))},
          {"rank_flops_per_step", flops_of_rank(engine)},
          {"collectives", describe_collectives(engine)},
          {"program_steps",
           program.prologue.size() + program.microbatch.size() + program.update.size()}};
}

std::string bytes(const nlohmann::json& value) { return format_bytes(value.get<double>()); }

void print_memory(const nlohmann::json& memory) {
  const bool opens = memory["peak"] == memory["opening"];  // takes more than what comes after it
  fmt::print("memory           {} at the peak{}:\n", bytes(memory["peak"]),
             opens ? ", while the data set is opened; later" : "");
  const std::pair<const char*, const char*> kinds[] = {
      {"process", "before anything is trained: code, data set, kernels"},
      {"states", "parameters, statistics and the optimizer's values"},
      {"gradients", "sums over leaves"},
      {"workspace", "activations"},
      {"communication", "what other ranks are told"},
      {"loaders", "batches that are prepared"},
      {"checkpoint", "the copy of the states that is being saved, and one being read"},
      {"of_others", "what is read of other ranks' memory where it lies"}};
  for (const auto& [kind, what] : kinds) {
    fmt::print("  {:<14} {:>9}  {}\n", kind, bytes(memory[kind]), what);
  }
  if (memory["offloaded"] == 0) return;
  fmt::print(
      "disk             {} of what is offloaded, of which a window is in memory among the states "
      "and the workspace\n",
      bytes(memory["offloaded"]));
}

void print_text(const nlohmann::json& info) {
  std::size_t width = 0;
  for (const nlohmann::json& parameter : info["parameters"]) {
    width = std::max(width, parameter["name"].get<std::string>().size());
  }
  for (const nlohmann::json& parameter : info["parameters"]) {
    const Shape shape(parameter["shape"].get<std::vector<std::int64_t>>());
    fmt::print("{:<{}}  {}{}\n", parameter["name"].get<std::string>(), width,
               parameter["dtype"].get<std::string>(), to_string(shape));
  }
  fmt::print(
      "\n"
      "model            {}: {}, {}, {}\n"
      "loss             {}\n"
      "batch            {} in {}, computed {} at a time in {}\n"
      "work             {}FLOP a sample, {}FLOP a step\n"
      "states           {}\n"
      "gradient         {} for each sum that is kept\n"
      "arena            {}; no plan could need less than {}\n"
      "workspace        {}: arena and prologues, by turns of training and evaluation\n",
      info["model"].get<std::string>(),
      counted(info["parameter_count"].get<std::int64_t>(), "parameter"),
      counted(info["statistic_count"].get<std::int64_t>(), "statistic"),
      counted(info["optimizer_state_count"].get<std::int64_t>(), "optimizer value"),
      info["loss"].get<std::string>(), info["batch"].get<std::int64_t>(),
      counted(info["leaves"].get<std::int64_t>(), "leaf", "leaves"),
      info["microbatch"].get<std::int64_t>(), info["precision"].get<std::string>(),
      format_count(info["flops_per_sample"].get<double>()),
      format_count(info["flops_per_step"].get<double>()), bytes(info["state_bytes"]),
      bytes(info["gradient_bytes"]), bytes(info["arena_bytes"]),
      bytes(info["arena_lower_bound_bytes"]), bytes(info["workspace_bytes"]));
  print_memory(info["memory"]);
  if (info["ranks"].get<int>() == 1) return;
  fmt::print("a rank           {}, {}FLOP a step of {}; memory above is a rank's own\n\n",
             counted(info["rank_parameter_count"].get<std::int64_t>(), "parameter"),
             format_count(info["rank_flops_per_step"].get<double>()),
             counted(info["ranks"].get<std::int64_t>(), "rank"));
  print_collectives(info["collectives"]);
  if (info.contains("pipeline")) print_stages(info["pipeline"]);
}

void run_info(const InfoArguments& arguments) {
  PlannedJob planned(arguments.config.load(), arguments.ranks);
  train::Job& job = planned.job();
  nlohmann::json info = describe(job.config, job);
  nlohmann::json pipeline = describe_stages(job);
  if (!pipeline.is_null()) info["pipeline"] = std::move(pipeline);
  if (!arguments.json) print_text(info);
  if (arguments.program) {
    fmt::print("{}{}", arguments.json ? "" : "\n", to_string(job.engine->training_program()));
  }
  if (arguments.json) print_json(info);
}

}  // namespace

void add_info(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("info", "Show parameters, work and memory of a configuration");
  const auto arguments = std::make_shared<InfoArguments>();
  arguments->config.add_to(*command);
  add_planned_ranks(*command, arguments->ranks);
  command->add_flag("--program", arguments->program,
                    "Also print the compiled training program, step by step");
  add_json_flag(*command, arguments->json);
  command->footer(
      "Examples:\n"
      "  concord info run.toml\n"
      "  concord info run.toml --set train.batch=32 --program");
  command->callback([arguments] { arguments->config.naming_plan([&] { run_info(*arguments); }); });
}

}  // namespace concord::cli

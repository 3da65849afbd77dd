// concord plan show: how the ranks of a job divide a model, before anything is run.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/text.h"
#include "concord/cli/command.h"
#include "concord/cli/planned_job.h"
#include "concord/cli/units.h"
#include "concord/ops/collective.h"
#include "concord/parallel/traffic.h"

namespace concord::cli {
namespace {

struct PlanArguments {
  ConfigArguments config;
  int ranks = 0;
  std::string out;
  bool json = false;
};

const Placement& placement_of(const parallel::Plan& plan, const std::string& name) {
  static const Placement replicated;
  const auto found = plan.states.find(name);
  return found == plan.states.end() ? replicated : found->second;
}

// The plan as the configuration has it: what `--plan` takes.
std::string to_toml(const train::Engine& engine) {
  const parallel::Plan& plan = engine.plan();
  std::string axes;
  for (const MeshAxis& axis : plan.mesh.axes) {
    axes += fmt::format("{}{} = {}", axes.empty() ? "" : ", ", axis.name, axis.extent);
  }
  std::string text = fmt::format("[parallel]\nmesh = {{ {} }}\nzero = {}\n", axes, plan.zero);
  if (plan.mesh.extent(parallel::kPipeAxis) > 1) {
    text += fmt::format("schedule = {}\nchunks = {}\n",
                        quote(std::string(parallel::name_of(plan.schedule))), plan.chunks);
  }
  text += "\n[parallel.place]\n";
  for (const StateStore::Entry& entry : engine.states().entries()) {
    if (entry.role != State::Role::kParameter) continue;
    text += fmt::format("{} = {}\n", quote(entry.name),
                        quote(fmt::format("{}:{} of {}", parallel::kTensorAxis,
                                          parallel::pin_text(placement_of(plan, entry.name)),
                                          to_string(entry.type.shape))));
  }
  return text;
}

// Of all numbers of a weight, what rank 0 holds.
double share_of(const StateStore::Entry& entry) {
  if (!entry.is_here()) return 0;
  const std::int64_t held = entry.is_flat() ? entry.flat->part : entry.part.shape.elements();
  return static_cast<double>(held) /
         static_cast<double>(std::max<std::int64_t>(1, entry.type.shape.elements()));
}

// Of the weights whose gradients are compressed, by name.
std::map<std::string, std::string> codecs_of(const Graph& graph) {
  std::map<std::string, std::string> codecs;
  for (const Node& node : graph.nodes) {
    if (node.op == ops::kEncodedSum) codecs[node.name] = node.attributes.text("codec");
  }
  return codecs;
}

nlohmann::json describe(const train::Engine& engine) {
  const parallel::Plan& plan = engine.plan();
  const std::map<std::string, std::string> codecs = codecs_of(engine.training_program().graph);
  nlohmann::json axes = nlohmann::json::object(), weights = nlohmann::json::array();
  for (const MeshAxis& axis : plan.mesh.axes) axes[axis.name] = axis.extent;
  for (const StateStore::Entry& entry : engine.states().entries()) {
    if (entry.role != State::Role::kParameter) continue;
    weights.push_back({{"name", entry.name},
                       {"shape", entry.type.shape.dims()},
                       {"tensor", parallel::pin_text(placement_of(plan, entry.name))},
                       {"share", share_of(entry)}});
    const auto stages = plan.stages.find(entry.name);
    if (stages != plan.stages.end()) weights.back()["stages"] = stages->second;
    const auto codec = codecs.find(entry.name);
    if (codec != codecs.end()) weights.back()["codec"] = codec->second;
  }
  nlohmann::json undivided = nlohmann::json::array();
  for (const parallel::WholeWeight& weight : plan.whole_weights) undivided.push_back(weight.name);
  return {{"mesh", std::move(axes)},           {"zero", plan.zero},
          {"ranks", plan.mesh.ranks()},        {"weights", std::move(weights)},
          {"undivided", std::move(undivided)}, {"collectives", describe_collectives(engine)}};
}

// Behind a weight's placement: what of it a rank holds where ranks along data have parts, too; and
// whether the mesh leaves it whole though no pin does.
std::string remark_on(const nlohmann::json& weight, const nlohmann::json& plan) {
  std::string text;
  if (plan["zero"] == 3 && weight["share"] < 1) {
    text = fmt::format("  {} of it", format_percent(weight["share"]));
  }
  if (std::ranges::count(plan["undivided"], weight["name"]) > 0)
    text += "  not divided by the mesh";
  if (weight.contains("stages")) {
    text += fmt::format("  stage {}", fmt::join(weight["stages"].get<std::vector<int>>(), " and "));
  }
  if (weight.contains("codec")) text += "  by " + weight["codec"].get<std::string>();
  return text;
}

void print_text(const nlohmann::json& plan, const Mesh& mesh) {
  const int zero = plan["zero"];
  fmt::print("mesh {} of {}{}\n\n", to_string(mesh),
             counted(plan["ranks"].get<std::int64_t>(), "rank"),
             zero == 0 ? "" : fmt::format(", zero {}", zero));
  std::size_t width = 0;
  for (const nlohmann::json& weight : plan["weights"]) {
    width = std::max(width, weight["name"].get<std::string>().size());
  }
  for (const nlohmann::json& weight : plan["weights"]) {
    const Shape shape(weight["shape"].get<std::vector<std::int64_t>>());
    fmt::print("{:<{}}  {:<14} tensor: {}{}\n", weight["name"].get<std::string>(), width,
               to_string(shape), weight["tensor"].get<std::string>(), remark_on(weight, plan));
  }
  fmt::print("\n");
  print_collectives(plan["collectives"]);
}

// What CLI11 says of it; "" where all is well.
std::string is_file_name(const std::string& text) {
  return text.empty() ? "expected the name of a file" : "";
}

void show(const PlanArguments& arguments) {
  const PlannedJob planned(arguments.config.load(), arguments.ranks);
  const train::Engine& engine = *planned.job().engine;
  if (!arguments.out.empty()) {
    OutputFile file(arguments.out);
    file.write(to_toml(engine));
    file.sync();
  }
  const nlohmann::json plan = describe(engine);
  if (arguments.json) return print_json(plan);
  print_text(plan, engine.plan().mesh);
}

}  // namespace

void add_plan(CLI::App& app) {
  CLI::App* command = app.add_subcommand("plan", "Show how ranks divide a model between them");
  command->require_subcommand(1);
  CLI::App* shown =
      command->add_subcommand("show", "Print the plan of a configuration: nothing is run");
  const auto arguments = std::make_shared<PlanArguments>();
  arguments->config.add_to(*shown);
  add_planned_ranks(*shown, arguments->ranks);
  shown->add_option("--out", arguments->out, "Also save the plan there, for --plan")
      ->type_name("FILE")
      ->check(is_file_name);
  add_json_flag(*shown, arguments->json);
  shown->footer(
      "Examples:\n"
      "  concord plan show run.toml --ranks 4 --set parallel.mesh.tensor=2\n"
      "  concord plan show run.toml --out plan.toml\n"
      "  concord train run.toml --ranks 4 --plan plan.toml");
  shown->callback([arguments] { arguments->config.naming_plan([&] { show(*arguments); }); });
}

}  // namespace concord::cli

#include "concord/cli/stages.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "concord/cli/units.h"
#include "concord/comm/planned.h"
#include "concord/parallel/stages.h"
#include "concord/train/pipeline.h"

namespace concord::cli {
namespace {

using parallel::Half;

std::size_t index(int i) { return static_cast<std::size_t>(i); }

std::span<const ProgramStep> steps_of(const Program& program, int half) {
  const std::size_t begin = half == 0 ? 0 : program.halves[index(half) - 1].end;
  return std::span(program.microbatch).subspan(begin, program.halves[index(half)].end - begin);
}

double flops_of(const Program& program, int half) {
  double flops = 0;
  for (const ProgramStep& step : steps_of(program, half)) {
    if (step.kernel != nullptr) flops += step.flops;
  }
  return flops;
}

nlohmann::json describe_stage(const train::Engine& engine, int place, int chunk,
                              std::int64_t microbatches) {
  const parallel::Plan& plan = engine.plan();
  const Program& program = engine.training_program();
  const int stage = stage_of(plan.pipeline(), place, chunk);
  const bool splits = splits_backward(plan.schedule);
  const int forward = half_index(plan, Half::kForward, chunk);
  const int backward = half_index(plan, Half::kBackward, chunk);
  const int last = splits ? half_index(plan, Half::kWeights, chunk) : backward;
  const double flops_back = flops_of(program, backward) + (splits ? flops_of(program, last) : 0);
  const parallel::StageCosts& costs = plan.stage_costs[index(stage)];

  std::string first_layer, last_layer;
  for (const ProgramStep& step : steps_of(program, forward)) {
    if (step.kernel == nullptr || step.layer.empty()) continue;
    if (first_layer.empty()) first_layer = step.layer;
    last_layer = step.layer;
  }
  std::int64_t parameters = 0;
  for (const StateStore::Entry& entry : engine.states().entries()) {
    const auto stages = plan.stages.find(entry.name);
    if (entry.role != State::Role::kParameter || stages == plan.stages.end()) continue;
    if (stages->second.front() == stage) parameters += entry.type.shape.elements();
  }
  std::size_t bytes = 0;  // from the forward pass until later halves
  for (const Pool& pool : program.pools) {
    if (pool.first == forward && pool.last > forward) bytes += pool.bytes;
  }
  const PipelineOrder order = train::order_of_steps(plan, place, microbatches);
  const std::int64_t in_flight = most_at_once(order.own, forward, last);
  return {{"stage", stage},
          {"place", place},
          {"first_layer", first_layer},
          {"last_layer", last_layer},
          {"parameter_count", parameters},
          {"forward_flops", flops_of(program, forward)},
          {"backward_flops", flops_back},
          {"forward_seconds", costs.forward},
          {"backward_seconds", costs.backward + costs.weights},
          {"microbatches_in_flight", in_flight},
          {"activation_bytes", static_cast<double>(bytes) * static_cast<double>(in_flight)}};
}

}  // namespace

nlohmann::json describe_stages(const train::Job& job) {
  const parallel::Plan& plan = job.engine->plan();
  if (plan.pipeline().ranks == 1) return nullptr;
  const auto microbatches =
      static_cast<std::int64_t>(std::ceil(job.engine->microbatches_of_rank()));
  const parallel::Pipeline pipeline = plan.pipeline(microbatches);
  std::vector<nlohmann::json> stages(index(pipeline.stages()));
  for (int place = 0; place < pipeline.ranks; ++place) {
    comm::Planned ranks(plan.mesh.ranks_along(0, parallel::kPipeAxis)[index(place)],
                        plan.mesh.ranks(), job.engine->ranks().has_common_memory());
    const auto engine = train::plan_engine(job, job.config, ranks);
    for (int chunk = 0; chunk < pipeline.chunks; ++chunk) {
      stages[index(stage_of(pipeline, place, chunk))] =
          describe_stage(*engine, place, chunk, microbatches);
    }
  }
  const std::vector<parallel::StageCosts> equal(stages.size());
  return {{"schedule", name_of(plan.schedule)},
          {"microbatches", microbatches},
          {"stages", stages},
          {"bubble", parallel::replay(pipeline, plan.stage_costs).bubble()},
          {"bubble_of_equal_stages", parallel::replay(pipeline, equal).bubble()}};
}

void print_stages(const nlohmann::json& pipeline) {
  if (pipeline.is_null()) return;
  fmt::print(
      "\npipeline         {}, {}: bubble {:.3f} by the cost of the stages, {:.3f} if they were "
      "equal\n",
      pipeline["schedule"].get<std::string>(),
      counted(pipeline["microbatches"].get<std::int64_t>(), "microbatch", "microbatches"),
      pipeline["bubble"].get<double>(), pipeline["bubble_of_equal_stages"].get<double>());
  fmt::print("{:<6} {:<6} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10}  layers\n", "stage", "place",
             "parameters", "forward", "backward", "cost", "in flight", "keeps");
  for (const nlohmann::json& stage : pipeline["stages"]) {
    const double seconds =
        stage["forward_seconds"].get<double>() + stage["backward_seconds"].get<double>();
    fmt::print("{:<6} {:<6} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10}  {} to {}\n",
               stage["stage"].get<int>(), stage["place"].get<int>(),
               format_count(stage["parameter_count"].get<double>()),
               format_count(stage["forward_flops"].get<double>()),
               format_count(stage["backward_flops"].get<double>()), format_duration(seconds),
               stage["microbatches_in_flight"].get<std::int64_t>(),
               format_bytes(stage["activation_bytes"].get<double>()),
               stage["first_layer"].get<std::string>(), stage["last_layer"].get<std::string>());
  }
  fmt::print(
      "FLOPs and cost are of a microbatch; a stage keeps the activations of those in flight\n");
}

}  // namespace concord::cli

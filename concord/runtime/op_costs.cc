#include "concord/runtime/op_costs.h"

#include <algorithm>

#include "concord/base/error.h"
#include "concord/graph/printer.h"

namespace concord {
namespace {

constexpr std::vector<ProgramStep> Program::*kPhases[] = {&Program::prologue, &Program::microbatch,
                                                          &Program::update};
constexpr std::vector<double> Executor::Timing::*kTimes[] = {
    &Executor::Timing::prologue, &Executor::Timing::microbatch, &Executor::Timing::update};

// What a step's time depends on.
std::string kind_of(const Program& program, const ProgramStep& step) {
  if (step.node == kNoNode) return fmt::format("{} of {} bytes", step.op, step.bytes);
  const Node& node = program.graph.node(step.node);
  std::string kind = fmt::format("{}{}", node.op, to_string(node.attributes));
  const auto add = [&](ValueId id) {
    const Value& value = program.graph.value(id);
    kind += fmt::format(" {}@{}", to_string(value.type), to_string(value.layout));
  };
  for (const ValueId id : node.inputs) add(id);
  kind += " ->";
  for (const ValueId id : node.outputs) add(id);
  return kind;
}

}  // namespace

std::set<std::string> kinds_of(const Program& program) {
  std::set<std::string> kinds;
  for (const auto phase : kPhases) {
    for (const ProgramStep& step : program.*phase) {
      if (step.kernel != nullptr) kinds.insert(kind_of(program, step));
    }
  }
  return kinds;
}

const OpCost& OpCosts::of(const Program& program, const ProgramStep& step) const {
  const auto found = costs_.find(kind_of(program, step));
  CONCORD_CHECK(found != costs_.end(), "the cost of {} is not known", step.op);
  return found->second;
}

// Steps of one kind differ by what lies in the caches: their mean counts.
void OpCosts::add(const Program& program, std::span<const Executor::Timing> alone,
                  std::span<const Executor::Timing> crowded) {
  CONCORD_CHECK(!alone.empty() && !crowded.empty());
  struct Sum {
    OpCost cost;
    int steps = 0;
  };
  std::map<std::string, Sum> sums;
  for (std::size_t phase = 0; phase < std::size(kPhases); ++phase) {
    const std::vector<ProgramStep>& steps = program.*kPhases[phase];
    for (std::size_t s = 0; s < steps.size(); ++s) {
      if (steps[s].kernel == nullptr) continue;
      const auto seconds = [&](std::span<const Executor::Timing> timings) {
        double all = 0;
        for (const Executor::Timing& timing : timings) all += (timing.*kTimes[phase])[s];
        return all / static_cast<double>(timings.size());
      };
      Sum& sum = sums[kind_of(program, steps[s])];
      sum.cost.alone += seconds(alone);
      sum.cost.crowded += seconds(crowded);
      ++sum.steps;
    }
  }
  for (const auto& [kind, sum] : sums) {
    costs_.try_emplace(kind, OpCost{sum.cost.alone / sum.steps, sum.cost.crowded / sum.steps});
  }
}

}  // namespace concord

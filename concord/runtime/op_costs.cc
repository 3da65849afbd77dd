#include "concord/runtime/op_costs.h"

#include <fmt/format.h>

#include <algorithm>

#include "concord/base/error.h"
#include "concord/runtime/step_kinds.h"

namespace concord {
namespace {

constexpr std::vector<ProgramStep> Program::*kPhases[] = {&Program::prologue, &Program::microbatch,
                                                          &Program::update};
// What a step's time depends on.
std::string kind_of_step(const Program& program, const ProgramStep& step) {
  if (step.node == kNoNode) return fmt::format("{} of {} bytes", step.op, step.bytes);
  return kind_of(program.graph, program.graph.node(step.node));
}

// Of the kinds of a program, in several rehearsals.
std::map<std::string, double> medians(const Program& program,
                                      std::span<const Executor::Rehearsal> rehearsals) {
  std::map<std::string, std::vector<double>> seconds;
  for (const Executor::Rehearsal& rehearsal : rehearsals) {
    struct Sum {
      double seconds = 0;
      int steps = 0;
    };
    std::map<std::string, Sum> sums;
    const auto add = [&](const std::vector<ProgramStep>& steps, const std::vector<double>& times) {
      for (std::size_t s = 0; s < steps.size(); ++s) {
        if (steps[s].kernel == nullptr) continue;
        Sum& sum = sums[kind_of_step(program, steps[s])];
        sum.seconds += times[s];
        ++sum.steps;
      }
    };
    add(program.prologue, rehearsal.prologue);
    for (const auto& times : rehearsal.microbatches) add(program.microbatch, times);
    add(program.update, rehearsal.update);
    for (const auto& [kind, sum] : sums) seconds[kind].push_back(sum.seconds / sum.steps);
  }
  std::map<std::string, double> result;
  for (auto& [kind, of_kind] : seconds) {
    std::ranges::sort(of_kind);
    result[kind] = of_kind[of_kind.size() / 2];
  }
  return result;
}

}  // namespace

std::set<std::string> kinds_of(const Program& program) {
  std::set<std::string> kinds;
  for (const auto phase : kPhases) {
    for (const ProgramStep& step : program.*phase) {
      if (step.kernel != nullptr) kinds.insert(kind_of_step(program, step));
    }
  }
  return kinds;
}

const OpCost& OpCosts::of(const Program& program, const ProgramStep& step) const {
  const auto found = costs_.find(kind_of_step(program, step));
  CONCORD_CHECK(found != costs_.end(), "the cost of {} is not known", step.op);
  return found->second;
}

// Steps of one kind differ by what lies in the caches: their mean counts.
void OpCosts::add(const Program& program, std::span<const Executor::Rehearsal> alone,
                  std::span<const Executor::Rehearsal> crowded) {
  CONCORD_CHECK(!alone.empty() && !crowded.empty());
  const std::map<std::string, double> of_alone = medians(program, alone);
  const std::map<std::string, double> of_crowded = medians(program, crowded);
  for (const auto& [kind, seconds] : of_alone) {
    costs_.try_emplace(kind, OpCost{seconds, of_crowded.at(kind)});
  }
}

RehearsedCosts::RehearsedCosts(const Program& program, Executor::Rehearsal alone,
                               Executor::Rehearsal crowded)
    : program_(&program), alone_(std::move(alone)), crowded_(std::move(crowded)) {}

OpCost RehearsedCosts::of(const ProgramStep& step, std::int64_t microbatch) const {
  const auto of = [&](const std::vector<ProgramStep>& steps, const std::vector<double>& alone,
                      const std::vector<double>& crowded) {
    const auto s = static_cast<std::size_t>(&step - steps.data());
    return OpCost{alone.at(s), crowded.at(s)};
  };
  const auto has = [&](const std::vector<ProgramStep>& steps) {
    return !steps.empty() && &step >= &steps.front() && &step <= &steps.back();
  };
  if (has(program_->prologue)) return of(program_->prologue, alone_.prologue, crowded_.prologue);
  if (has(program_->update)) return of(program_->update, alone_.update, crowded_.update);
  const auto m = static_cast<std::size_t>(microbatch) % alone_.microbatches.size();
  return of(program_->microbatch, alone_.microbatches[m], crowded_.microbatches[m]);
}

OpCost RehearsedCosts::of_inputs(std::int64_t microbatch) const {
  const auto m = static_cast<std::size_t>(microbatch) % alone_.inputs.size();
  return {alone_.inputs[m], crowded_.inputs[m]};
}

OpCost RehearsedCosts::of_bucket(std::size_t bucket, std::int64_t microbatch) const {
  const auto m = static_cast<std::size_t>(microbatch) % alone_.additions.size();
  return {alone_.additions[m].at(bucket), crowded_.additions[m].at(bucket)};
}

}  // namespace concord

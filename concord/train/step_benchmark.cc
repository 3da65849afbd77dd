#include "concord/train/step_benchmark.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "concord/base/clock.h"
#include "concord/base/error.h"

namespace concord::train {
namespace {

// Steps in which ops are timed: a mean over a few is steady enough.
constexpr int kMostTimedSteps = 10;

// The value below which `share` of the sorted values lie, between neighbours in proportion.
double quantile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// Op and layer.
using Times = std::map<std::pair<std::string, std::string>, OpTime>;

// Adds the steps of one phase, which runs `runs` times in a training step.
void add_phase(const std::vector<ProgramStep>& steps, const std::vector<double>& seconds,
               int timed_steps, double runs, bool by_layer, Times& times) {
  for (std::size_t i = 0; i < steps.size(); ++i) {
    OpTime& time = times[{steps[i].op, by_layer ? steps[i].layer : ""}];
    time.runs += runs;
    time.seconds += seconds[i] / timed_steps;
    time.flops += steps[i].flops * runs;
  }
}

std::vector<OpTime> time_ops(Engine& engine, const std::function<Samples()>& next_batch, int steps,
                             std::int64_t first_step, bool by_layer) {
  const Program& program = engine.training_program();
  Executor::Timing timing{.program = &program,
                          .prologue = std::vector<double>(program.prologue.size()),
                          .microbatch = std::vector<double>(program.microbatch.size()),
                          .update = std::vector<double>(program.update.size())};
  engine.set_timing(&timing);
  for (int i = 0; i < steps; ++i) seconds_of_step(engine, next_batch(), first_step + i);
  engine.drain();
  engine.set_timing(nullptr);
  const double microbatches = engine.microbatches_of_rank();
  Times times;
  add_phase(program.prologue, timing.prologue, steps, 1, by_layer, times);
  add_phase(program.microbatch, timing.microbatch, steps, microbatches, by_layer, times);
  add_phase(program.update, timing.update, steps, 1, by_layer, times);

  std::vector<OpTime> result;
  for (auto& [place, time] : times) {
    std::tie(time.op, time.layer) = place;
    result.push_back(std::move(time));
  }
  std::ranges::stable_sort(result, std::ranges::greater{}, &OpTime::seconds);
  return result;
}

}  // namespace

double seconds_of_step(Engine& engine, const Samples& samples, std::int64_t step) {
  const double start = now_seconds();
  const Engine::StepBegin begin{.step = step, .samples = engine.batch(), .learning_rate = 0};
  if (engine.overlaps_steps()) {
    engine.stream(begin, samples);
    return now_seconds() - start;
  }
  engine.begin_step(begin);
  engine.accumulate(samples);
  engine.reduce();
  engine.update();
  return now_seconds() - start;
}

StepBenchmark benchmark_steps(Engine& engine, const std::function<Samples()>& next_batch,
                              const StepBenchmarkOptions& options) {
  if (options.steps < 1) fail("steps = {}: expected at least 1 to measure", options.steps);
  if (options.warmup < 0) fail("warmup = {}: expected 0 or more", options.warmup);
  std::vector<double> seconds;
  std::int64_t step = 0;
  comm::Communicator::Usage before;
  for (; step < options.warmup + options.steps; ++step) {
    if (step == options.warmup) before = engine.ranks().usage();
    const Samples samples = next_batch();
    const double one = seconds_of_step(engine, samples, step);
    if (step >= options.warmup) seconds.push_back(one);
  }
  engine.drain();
  std::ranges::sort(seconds);

  StepBenchmark result;
  if (engine.ranks().size() > 1) {
    const comm::Communicator::Usage usage = engine.ranks().usage();
    result.communication_seconds = (usage.busy - before.busy) / options.steps;
    result.exposed_seconds = (usage.waited - before.waited) / options.steps;
    result.sent_bytes = (usage.sent - before.sent) / static_cast<std::uint64_t>(options.steps);
  }
  result.steps = options.steps;
  result.step_seconds = quantile(seconds, 0.5);
  result.fastest_seconds = seconds.front();
  result.slowest_seconds = seconds.back();
  result.spread = (quantile(seconds, 0.75) - quantile(seconds, 0.25)) / result.step_seconds;
  result.samples_per_second = static_cast<double>(engine.batch()) / result.step_seconds;
  result.flops_per_second = engine.flops_per_step() / result.step_seconds;
  if (options.by_op) {
    result.by_op = time_ops(engine, next_batch, std::min(options.steps, kMostTimedSteps), step,
                            options.by_layer);
  }
  if (options.runs_alone > 0) {
    result.products_alone_seconds = engine.seconds_of_products_alone(options.runs_alone);
  }
  return result;
}

JobTrace trace_steps(Engine& engine, const std::function<Samples()>& next_batch, int steps) {
  Trace trace(static_cast<std::size_t>(steps) * engine.events_per_step());
  for (int step = 1; step <= steps; ++step) {
    const Samples samples = next_batch();
    engine.ranks().barrier();
    trace.skip_operations(engine.ranks());
    trace.set_step(step);
    engine.set_trace(&trace);
    seconds_of_step(engine, samples, step - 1);
    engine.set_trace(nullptr);
    trace.add_operations(engine.ranks());
  }
  return gather_traces(trace, engine.ranks());
}

}  // namespace concord::train

#include "concord/train/engine.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "concord/base/error.h"
#include "concord/graph/op.h"
#include "concord/nn/initialize.h"

namespace concord::train {
namespace {

double microbatch_flops(const Graph& graph) {
  const std::vector<Phase> phase = phases(graph);
  double flops = 0;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    if (phase[i] == Phase::kMicrobatch) flops += cost_of(graph, graph.nodes[i]).flops;
  }
  return flops;
}

double flops_of(const std::vector<ProgramStep>& steps) {
  double flops = 0;
  for (const ProgramStep& step : steps) flops += step.flops;
  return flops;
}

std::int64_t parameters_of(const Graph& graph) {
  std::int64_t count = 0;
  for (const State& state : graph.states) {
    if (state.role == State::Role::kParameter) count += graph.type(state.value).shape.elements();
  }
  return count;
}

void check_divisions(const EngineOptions& options) {
  if (options.batch < 1) fail("train.batch = {}: expected at least 1", options.batch);
  if (options.leaves < 1 || !std::has_single_bit(static_cast<std::uint64_t>(options.leaves)) ||
      options.leaves > options.batch) {
    fail("train.leaves = {}: expected a power of two of at most train.batch = {}", options.leaves,
         options.batch);
  }
}

template <typename T>
void copy_rows(Executor& executor, const Binding& binding, std::span<const T> rows,
               std::int64_t count, std::int64_t first, std::int64_t samples) {
  const std::size_t width = rows.size() / static_cast<std::size_t>(count);
  CONCORD_CHECK(binding.type.shape.elements() == static_cast<std::int64_t>(width) * samples,
                "\"{}\" is {}, given rows of {}", binding.name, to_string(binding.type), width);
  std::memcpy(executor.at<T>(binding), rows.data() + width * static_cast<std::size_t>(first),
              width * static_cast<std::size_t>(samples) * sizeof(T));
}

}  // namespace

ModelGraphs model_graphs(const nn::StepOptions& options) {
  const auto sized = [options](Graph (*build)(const nn::StepOptions&)) {
    return [options, build](std::int64_t samples) {
      nn::StepOptions with_samples = options;
      with_samples.microbatch = samples;
      return build(with_samples);
    };
  };
  return {.training = sized(nn::build_training_step),
          .evaluation = sized(nn::build_evaluation_step),
          .prediction = sized(nn::build_prediction)};
}

std::int64_t default_leaves(std::int64_t batch, double flops_per_sample, std::int64_t parameters) {
  constexpr std::int64_t kMostLeaves = 8;
  constexpr double kFewestSamples = 16;
  constexpr double kFewestFlopsPerParameter = 2000;
  std::int64_t leaves = 1;
  while (leaves < kMostLeaves) {
    const double samples = static_cast<double>(batch) / static_cast<double>(2 * leaves);
    const double flops = samples * flops_per_sample;
    if (samples < kFewestSamples ||
        flops < kFewestFlopsPerParameter * static_cast<double>(parameters)) {
      break;
    }
    leaves *= 2;
  }
  return leaves;
}

Engine::Engine(ModelGraphs graphs, const EngineOptions& options)
    : graphs_(std::move(graphs)), options_(options) {
  if (options_.leaves == 0 && options_.batch > 0) {
    const Graph graph = graphs_.training(options_.batch);
    options_.leaves = default_leaves(options_.batch,
                                     microbatch_flops(graph) / static_cast<double>(options_.batch),
                                     parameters_of(graph));
  }
  check_divisions(options_);
  if (options_.microbatch == 0) options_.microbatch = leaf_size();
  if (options_.microbatch < 1 || options_.microbatch > leaf_size()) {
    fail(
        "train.microbatch = {}: expected 1 to {}, the samples of a leaf (train.batch / "
        "train.leaves)",
        options_.microbatch, leaf_size());
  }

  auto program = std::make_unique<Program>();
  std::vector<PassRecord> passes;
  Graph lowered = lower(graphs_.training(options_.microbatch), options_.policy, {}, &passes);
  states_ = std::make_unique<StateStore>(lowered);
  for (const State& state : lowered.states) {
    const StateStore::Entry& entry = *states_->find(lowered.value(state.value).name);
    OwnedTensor initial(entry.type);
    nn::initialize(lowered, state, options_.seed, initial.as<float>());
    states_->write(entry, initial.view().data);
  }
  *program = compile(std::move(lowered), options_.policy, *states_);
  program->passes = std::move(passes);
  training_executor_ = std::make_unique<Executor>(*states_);
  other_executor_ = std::make_unique<Executor>(*states_);
  training_executor_->prepare(*program);
  CONCORD_CHECK(program->output("loss").address.region == Region::kSums,
                "the loss is summed over leaves");
  training_.emplace(options_.microbatch, std::move(program));
}

std::int64_t Engine::leaf_size() const {
  return (options_.batch + options_.leaves - 1) / options_.leaves;
}

std::int64_t Engine::parameter_count() const {
  std::int64_t count = 0;
  for (const StateStore::Entry& entry : states_->entries()) {
    if (entry.role == State::Role::kParameter) count += entry.type.shape.elements();
  }
  return count;
}

double Engine::flops_per_step() {
  const Program& program = training_program();
  return flops_of(program.microbatch) * static_cast<double>(options_.batch) /
             static_cast<double>(options_.microbatch) +
         flops_of(program.prologue) + flops_of(program.update);
}

Program& Engine::training_program(std::int64_t samples) {
  auto& program = training_[samples];
  if (program == nullptr) {
    PinnedLayouts pinned;
    for (const StateStore::Entry& entry : states_->entries())
      pinned.states[entry.name] = entry.layout;
    pinned.leaf_sums = training_.at(options_.microbatch)->sums_layouts;
    program = std::make_unique<Program>(compile(
        lower(graphs_.training(samples), options_.policy, pinned), options_.policy, *states_));
    training_executor_->prepare(*program);
  }
  return *program;
}

Program& Engine::other_program(Programs& programs, const std::function<Graph(std::int64_t)>& build,
                               std::int64_t samples) {
  auto& program = programs[samples];
  if (program == nullptr) {
    PinnedLayouts pinned;
    for (const StateStore::Entry& entry : states_->entries())
      pinned.states[entry.name] = entry.layout;
    program = std::make_unique<Program>(
        compile(lower(build(samples), options_.policy, pinned), options_.policy, *states_));
    other_executor_->prepare(*program);
  }
  return *program;
}

void Engine::prepare_training(std::int64_t samples) {
  for_each_microbatch(
      0, samples, [&](std::int64_t, std::int64_t count, bool, bool) { training_program(count); });
}

void Engine::prepare_evaluation(std::int64_t samples) {
  for_each_microbatch(0, samples, [&](std::int64_t, std::int64_t count, bool, bool) {
    other_program(evaluation_, graphs_.evaluation, count);
  });
}

// Calls body(offset, samples, first_of_leaf, last_of_leaf) for the microbatches of `count` samples
// that begin at sample `first` of the step.
template <typename Body>
void Engine::for_each_microbatch(std::int64_t first, std::int64_t count, Body body) const {
  std::int64_t offset = 0;
  while (offset < count) {
    const std::int64_t in_leaf = (first + offset) % leaf_size();
    const std::int64_t leaf_left = std::min(leaf_size() - in_leaf, count - offset);
    const std::int64_t samples = std::min(options_.microbatch, leaf_left);
    body(offset, samples, in_leaf == 0, samples == leaf_left);
    offset += samples;
  }
}

void Engine::set_step_inputs(Program& program) {
  for (const Binding& input : program.step_inputs) {
    const double value = input.name == "batch_weight" ? 1.0 / static_cast<double>(step_.samples)
                                                      : step_.learning_rate;
    *training_executor_->at<float>(input) = static_cast<float>(value);
  }
}

void Engine::set_inputs(Executor& executor, Program& program, const Samples& samples,
                        std::int64_t first, std::int64_t position) {
  for (const Binding& input : program.batch_inputs) {
    const std::int64_t rows = input.type.shape.rank() == 0 ? 0 : input.type.shape[0];
    if (input.name == "features")
      copy_rows(executor, input, samples.features, samples.count, first, rows);
    if (input.name == "labels")
      copy_rows(executor, input, samples.labels, samples.count, first, rows);
    if (input.name == "targets")
      copy_rows(executor, input, samples.targets, samples.count, first, rows);
    if (input.name == "position") {
      executor.at<std::int64_t>(input)[0] = step_.step;
      executor.at<std::int64_t>(input)[1] = position;
    }
  }
}

void Engine::begin_step(const StepBegin& begin) {
  if (begin.samples < 1 || begin.samples > options_.batch) {
    fail("a step of {} samples was asked for; expected 1 to the batch of {}", begin.samples,
         options_.batch);
  }
  step_ = begin;
  accumulated_ = 0;
  training_executor_->begin_step();
}

void Engine::accumulate(const Samples& samples) {
  CONCORD_CHECK(accumulated_ % leaf_size() == 0,
                "only the last call of a step may bring a partial leaf");
  CONCORD_CHECK(accumulated_ + samples.count <= step_.samples);
  const auto run = [&](std::int64_t offset, std::int64_t count, bool first_of_leaf,
                       bool last_of_leaf) {
    Program& program = training_program(count);
    set_step_inputs(program);
    set_inputs(*training_executor_, program, samples, offset, accumulated_ + offset);
    training_executor_->microbatch(program, first_of_leaf);
    if (last_of_leaf) training_executor_->finish_leaf();
  };
  for_each_microbatch(accumulated_, samples.count, run);
  accumulated_ += samples.count;
}

StepResult Engine::reduce() {
  CONCORD_CHECK(accumulated_ == step_.samples, "{} of {} samples", accumulated_, step_.samples);
  constexpr std::int64_t kLargestWatched = 4096;
  training_executor_->reduce();
  const Program& program = training_program(options_.microbatch);
  StepResult result{.finite = training_executor_->sums_are_finite(program, kLargestWatched)};
  for (const Binding& output : program.outputs) {
    const float value = *training_executor_->at<float>(output);
    if (output.name == "loss") result.loss = value;
    if (output.name == "correct") result.correct = value;
  }
  return result;
}

void Engine::update() {
  Program& program = training_program(options_.microbatch);
  set_step_inputs(program);
  training_executor_->update(program);
}

std::string Engine::find_nonfinite(const Samples& samples) {
  std::string found;
  training_executor_->begin_step();
  for_each_microbatch(0, samples.count, [&](std::int64_t offset, std::int64_t count, bool, bool) {
    if (!found.empty()) return;
    Program& program = training_program(count);
    set_step_inputs(program);
    set_inputs(*training_executor_, program, samples, offset, offset);
    training_executor_->activate(program);
    found = training_executor_->find_nonfinite(program);
  });
  return found;
}

StepResult Engine::evaluate(const Samples& samples) {
  StepResult result;
  for_each_microbatch(0, samples.count, [&](std::int64_t offset, std::int64_t count, bool, bool) {
    Program& program = other_program(evaluation_, graphs_.evaluation, count);
    other_executor_->begin_step();
    for (const Binding& input : program.step_inputs) *other_executor_->at<float>(input) = 1.0f;
    set_inputs(*other_executor_, program, samples, offset, offset);
    other_executor_->microbatch(program, true);
    other_executor_->reduce();
    for (const Binding& output : program.outputs) {
      const float value = *other_executor_->at<float>(output);
      if (output.name == "loss") result.loss += value;
      if (output.name == "correct") result.correct += value;
    }
  });
  return result;
}

std::int64_t Engine::predict(const Samples& samples, std::span<float> logits) {
  std::int64_t width = 0;
  for_each_microbatch(0, samples.count, [&](std::int64_t offset, std::int64_t count, bool, bool) {
    Program& program = other_program(prediction_, graphs_.prediction, count);
    other_executor_->begin_step();
    set_inputs(*other_executor_, program, samples, offset, offset);
    other_executor_->microbatch(program, true);
    const Binding& output = program.output("logits");
    width = output.type.shape.elements() / count;
    CONCORD_CHECK(logits.size() >= static_cast<std::size_t>(width * (offset + count)));
    std::copy_n(other_executor_->at<float>(output), width * count, logits.data() + width * offset);
  });
  return width;
}

}  // namespace concord::train

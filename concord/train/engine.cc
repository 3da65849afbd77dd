#include "concord/train/engine.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>
#include <tuple>

#include "concord/base/error.h"
#include "concord/base/parallel.h"
#include "concord/graph/op.h"
#include "concord/kernels/cpu/instruction_set.h"
#include "concord/ops/step.h"
#include "concord/parallel/compress.h"
#include "concord/passes/dead_code.h"
#include "concord/runtime/leaf_sums.h"
#include "concord/runtime/offload.h"
#include "concord/runtime/reach.h"
#include "concord/train/pipeline.h"

namespace concord::train {
namespace {

// Of all ranks, where each does a share of a step.
double flops_of(const Program& program, const std::vector<ProgramStep>& steps) {
  double flops = 0;
  for (const ProgramStep& step : steps) {
    if (step.node != kNoNode) flops += cost_of(program.graph, program.graph.node(step.node)).flops;
  }
  return flops;
}

// What the update alone reads.
std::set<std::string> offloadable_states(const Graph& graph) {
  std::set<std::string> names;
  for (const State& state : graph.states) {
    const std::string& name = graph.value(state.value).name;
    if (state.role == State::Role::kOptimizer && !name.ends_with(kAverageSuffix) &&
        !parallel::is_kept_by_encoders(name)) {
      names.insert(name);
    }
  }
  return names;
}

// Copies rows of `rows`, which holds `count` of them, into an input, from row `first` on.
template <typename T>
void copy_rows(T* destination, const Binding& input, std::span<const T> rows, std::int64_t count,
               std::int64_t first) {
  const std::size_t width = rows.size() / static_cast<std::size_t>(count);
  const auto samples = static_cast<std::size_t>(input.type.shape[0]);
  if (rows.size() != width * static_cast<std::size_t>(count) ||
      width * samples != static_cast<std::size_t>(input.type.shape.elements())) {
    fail("\"{}\" is {} for a microbatch; given {} numbers for {} samples", input.name,
         to_string(input.type), rows.size(), count);
  }
  std::memcpy(destination, rows.data() + width * static_cast<std::size_t>(first),
              width * samples * sizeof(T));
}

bool meets_along_data(const Program& program) {
  return std::ranges::any_of(program.microbatch, [](const ProgramStep& step) {
    return step.collective && step.collective->axis == parallel::kDataAxis;
  });
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

Engine::Engine(ModelGraphs graphs, const EngineOptions& options)
    : graphs_(std::move(graphs)), options_(options) {
  if (options_.precision == DType::kBF16) cpu::require_bf16();
  if (options_.ranks == nullptr) options_.ranks = &alone_;
  join_axes();
  choose_divisions();
  set_compute_threads(compute_threads());  // as the environment has them, and all granted
  options_.policy.threads = compute_threads();

  const bool trains = options_.use == EngineUse::kTraining;
  const auto& build = trains                                   ? graphs_.training
                      : options_.use == EngineUse::kEvaluation ? graphs_.evaluation
                                                               : graphs_.prediction;
  std::vector<PassRecord> passes;
  const Graph whole = build(options_.microbatch);
  LowerOptions lowering = lower_options(options_.recompute);
  lowering.sums_layouts = &sums_layouts_;
  Graph lowered = lower(whole, options_.policy, lowering, &passes);
  check_totals(lowered);
  states_ = std::make_unique<StateStore>(
      lowered, options_.plan.in_common, /*allocates=*/false,
      trains && options_.offload_states ? offloadable_states(lowered) : std::set<std::string>(),
      older_versions(lowered));
  states_->set_axis(std::string(parallel::kDataAxis), *data_);
  states_->set_axis(std::string(parallel::kTensorAxis), *tensor_);
  states_->set_axis(std::string(parallel::kPipeAxis), *pipe_);
  auto compiled =
      std::make_unique<Compiled>(compile(std::move(lowered), options_.policy, *states_,
                                         {.halves = halves(trains),
                                          .single_microbatch = trains && has_single_microbatch(),
                                          .in_rounds = trains && in_rounds(),
                                          .offload_activations = options_.offload_activations,
                                          .bucket_bytes = options_.bucket_bytes}));
  compiled->program.passes = std::move(passes);
  const bool has_loss =
      compiled->loss != nullptr && compiled->loss->address.region == Region::kSums;
  if (trains && !has_loss && pipe_ranks() == 1) {
    fail("the training graph has no output \"loss\" that is a leaf_sum");
  }
  workspace_ = std::make_shared<Workspace>(pipe_ranks() > 1     ? options_.ranks
                                           : tensor_ranks() > 1 ? tensor_
                                                                : nullptr,
                                           /*is_planned=*/true);
  training_executor_ = std::make_unique<Executor>(*states_, workspace_);
  other_executor_ = std::make_unique<Executor>(*states_, workspace_);
  training_executor_->read_older(own_staleness(), most_steps_in_flight(pipe_->rank()));
  if (options_.ranks->size() > 1 || !options_.plan.codecs.empty()) {
    const std::int64_t parts = microbatches_per_leaf();
    const Executor::Axes axes = {{std::string(parallel::kTensorAxis), tensor_},
                                 {std::string(parallel::kPipeAxis), pipe_}};
    comm::Communicator& leaves = options_.local ? alone_ : *data_;
    training_executor_->join(
        leaves,
        {.buffers = options_.local ? 0
                                   : LeafSums::buffers_for(first_leaf_, end_leaf_, parts > 1,
                                                           height_of_encoders()),
         .rounds = leaf_count(),
         .most_height = height_of_encoders(),
         .seed = options_.seed},
        axes);
    other_executor_->join(
        *data_, {.buffers = LeafSums::buffers_for(first_leaf_ * parts, end_leaf_ * parts, false)},
        axes);
    if (pipe_ranks() > 1) plan_pipeline();
  }
  (trains ? training_executor_ : other_executor_)->prepare(compiled->program);
  Programs& programs = trains                                   ? training_
                       : options_.use == EngineUse::kEvaluation ? evaluation_
                                                                : prediction_;
  first_program_ = &compiled->program;
  programs.emplace(options_.microbatch, std::move(compiled));
  if (trains) flops_per_step_ = flops_of_step(whole);
  if (!options_.only_planned) allocate();
}

void Engine::allocate() {
  try {
    states_->allocate(options_.offload_dir);
    if (options_.offload_activations) {
      training_executor_->allocate_offloaded(options_.offload_dir);
    }
  } catch (const Error& error) {
    if (offloaded_bytes() == 0) throw;
    fail(
        "{}; expected parallel.offload_dir to be a folder on a disk with that much room, or "
        "parallel.offload = \"none\"",
        error.what());
  }
  if (!shares_workspace()) workspace_->allocate();  // else ranks share it when they have joined
  if (options_.ranks->size() == 1) initialize_states(first_program_->graph);
}

std::size_t Engine::sum_bytes() const {
  if (options_.ranks->size() > 1 && !options_.local) {
    return training_executor_->sum_buffer_bytes() + other_executor_->sum_buffer_bytes();
  }
  const bool parts = microbatches_per_leaf() > 1;
  return LeafSums::buffers_for(first_leaf_, end_leaf_, parts, height_of_encoders()) *
         training_program().sums_bytes;
}

std::size_t Engine::reached_bytes() const {
  if (tensor_ranks() == 1 || !tensor_->has_common_memory()) return 0;
  std::vector<const Program*> programs;
  for (const Programs* some : {&training_, &evaluation_, &prediction_}) {
    for (const auto& [samples, compiled] : *some) programs.push_back(&compiled->program);
  }
  return concord::reached_bytes(programs, parallel::kTensorAxis,
                                {tensor_->rank(), tensor_->size()});
}

std::size_t Engine::resident_state_bytes() const {
  return states_->bytes() - states_->offloaded_bytes() +
         offloaded_window(training_program().update);
}

std::size_t Engine::resident_workspace_bytes() const {
  return workspace_bytes() + offloaded_window_bytes() - offloaded_window(training_program().update);
}

std::size_t Engine::offloaded_window_bytes() const {
  const Program& program = training_program();
  return std::max(offloaded_window(program.update), offloaded_window(program.microbatch));
}

void Engine::join_axes() {
  Mesh& mesh = options_.plan.mesh;
  const int ranks = options_.ranks->size();
  if (mesh.axes.empty()) mesh = {{{std::string(parallel::kDataAxis), ranks}}};
  CONCORD_CHECK(mesh.ranks() == ranks, "mesh {} of {} ranks", to_string(mesh), ranks);
  data_ = &options_.ranks->split(mesh, parallel::kDataAxis);
  tensor_ = &options_.ranks->split(mesh, parallel::kTensorAxis);
  pipe_ = &ranks_along_pipe(options_.plan, *options_.ranks);
  // Of what lies in common there is one version.
  options_.plan.in_common = sums_over_ranks() && data_->has_common_memory() &&
                            !parallel::is_asynchronous(options_.plan.schedule);
}

// As the program computes it; where ranks divide it, as the model has it.
double Engine::flops_of_step(const Graph& whole) const {
  const double microbatches =
      static_cast<double>(options_.batch) / static_cast<double>(options_.microbatch);
  if (!shares_workspace() && !options_.plan.flat) {  // the program has all of it
    const Program& program = training_program();
    return flops_of(program, program.microbatch) * microbatches +
           flops_of(program, program.prologue) + flops_of(program, program.update);
  }
  const Graph computed = remove_dead_code(whole);
  const std::vector<Phase> phase = phases(computed);
  double flops = 0;
  for (std::size_t n = 0; n < computed.nodes.size(); ++n) {
    const double times = phase[n] == Phase::kMicrobatch ? microbatches : 1;
    flops += times * cost_of(computed, computed.nodes[n]).flops;
  }
  return flops;
}

// Leaves that meet in totals are computed side by side.
void Engine::check_totals(const Graph& graph) const {
  if (std::ranges::count(graph.nodes, ops::kLeafTotal, &Node::op) == 0) return;
  const std::int64_t ranks = sums_over_ranks() ? data_->size() : 1;
  if (options_.leaves == ranks && microbatches_per_leaf() == 1) return;
  fail(
      "parallel.batch_norm = \"batch\": each leaf of a step needs a rank of its own, which "
      "computes it in one microbatch; given train.leaves = {} with microbatches of {} on {}: "
      "expected as many leaves as ranks, and train.microbatch = 0",
      options_.leaves, options_.microbatch, ranks == 1 ? "1 rank" : fmt::format("{} ranks", ranks));
}

void Engine::join_ranks() {
  if (options_.ranks->size() == 1) return;
  if (pipe_ranks() > 1) {
    const Streams streams = join_streams(options_.plan, *options_.ranks);
    training_executor_->join_streams(streams);
    other_executor_->join_streams(streams);
    const std::vector<int> together(static_cast<std::size_t>(options_.ranks->size()), 0);
    if (overlaps_steps()) telling_ = &options_.ranks->split("ended steps", together);
  }
  states_->share();
  training_executor_->share_memory();
  other_executor_->share_memory();
  initialize_states(training_program().graph);
  options_.ranks->barrier();  // what is in common is written
}

Engine::Compiled::Compiled(Program p)
    : program(std::move(p)),
      features(find_binding(program.batch_inputs, "features")),
      tokens(find_binding(program.batch_inputs, "tokens")),
      labels(find_binding(program.batch_inputs, "labels")),
      targets(find_binding(program.batch_inputs, "targets")),
      position(find_binding(program.batch_inputs, "position")),
      batch_weight(find_binding(program.step_inputs, "batch_weight")),
      learning_rate(find_binding(program.step_inputs, "learning_rate")),
      loss(find_binding(program.outputs, "loss")),
      correct(find_binding(program.outputs, "correct")),
      logits(find_binding(program.outputs, "logits")) {}

std::int64_t Engine::parameter_count() const {
  std::int64_t count = 0;
  for (const StateStore::Entry& entry : states_->entries()) {
    if (entry.role == State::Role::kParameter) count += entry.type.shape.elements();
  }
  return count;
}

// The first program chooses the layouts of the states, and what the plan leaves open. Ranks that
// train by themselves have all of them.
LowerOptions Engine::lower_options(Recompute recompute) {
  LowerOptions lowering{.plan = options_.local ? nullptr : &options_.plan,
                        .rank = options_.ranks->rank(),
                        .precision = options_.precision,
                        .recompute = recompute,
                        .layouts = {.microbatches = microbatches()}};
  if (states_ != nullptr) lowering.layouts.states = states_->layouts();
  return lowering;
}

Engine::Compiled& Engine::training(std::int64_t samples) {
  auto& compiled = training_[samples];
  if (compiled == nullptr) {
    LowerOptions lowering = lower_options(options_.recompute);
    lowering.layouts.leaf_sums = sums_layouts_;
    compiled = std::make_unique<Compiled>(compile(
        lower(graphs_.training(samples), options_.policy, lowering), options_.policy, *states_,
        {.halves = halves(/*backward=*/true),
         .single_microbatch = has_single_microbatch(),
         .in_rounds = in_rounds(),
         .offload_activations = options_.offload_activations,
         .like = &training_program(),
         .bucket_bytes = options_.bucket_bytes}));
    if (pipe_ranks() > 1) check_messages(compiled->program, training_program());
    training_executor_->prepare(compiled->program);
    if (pretend_) pretend_(compiled->program);
  }
  return *compiled;
}

Engine::Compiled& Engine::other(Programs& programs, const std::function<Graph(std::int64_t)>& build,
                                std::int64_t samples) {
  if (const auto found = programs.find(samples); found != programs.end()) return *found->second;
  Graph graph = build(samples);
  read_averages(graph);
  CompileOptions compiling{.halves = halves(/*backward=*/false),
                           .bucket_bytes = options_.bucket_bytes};
  if (!programs.empty()) compiling.like = &programs.begin()->second->program;
  Program program = compile(lower(graph, options_.policy, lower_options(Recompute::kNone)),
                            options_.policy, *states_, compiling);
  auto& compiled = programs[samples];
  compiled = std::make_unique<Compiled>(std::move(program));
  if (compiling.like != nullptr && pipe_ranks() > 1) {
    check_messages(compiled->program, *compiling.like);
  }
  other_executor_->prepare(compiled->program);
  if (pretend_) pretend_(compiled->program);
  return *compiled;
}

void Engine::pretend(std::function<void(Program&)> replace) {
  pretend_ = std::move(replace);
  for (Programs* programs : {&training_, &evaluation_, &prediction_}) {
    for (const auto& [samples, compiled] : *programs) pretend_(compiled->program);
  }
}

void Engine::prepare_training(std::int64_t samples) {
  for_each_microbatch(0, samples,
                      [&](std::int64_t, std::int64_t count, bool, bool) { training(count); });
}

void Engine::prepare_evaluation(std::int64_t samples) {
  for_each_microbatch(0, samples, [&](std::int64_t, std::int64_t count, bool, bool) {
    other(evaluation_, graphs_.evaluation, count);
  });
}

void Engine::set_step_inputs(Executor& executor, const Compiled& compiled,
                             double batch_weight) const {
  const auto set = [&](const Binding* input, double value) {
    if (input != nullptr) {
      *executor.at<float>(compiled.program, *input) = static_cast<float>(value);
    }
  };
  set(compiled.batch_weight, batch_weight);
  set(compiled.learning_rate, step_.learning_rate);
}

// The microbatch's rows begin at row `first` of `samples`, and at sample `position` of the step.
void Engine::set_batch_inputs(Executor& executor, const Compiled& compiled, const Samples& samples,
                              std::int64_t first, std::int64_t position,
                              std::int64_t microbatch) const {
  const auto copy = [&]<typename T>(const Binding* input, std::span<const T> rows) {
    if (input == nullptr) return;
    copy_rows(executor.at<T>(compiled.program, *input, microbatch), *input, rows, samples.count,
              first);
  };
  copy(compiled.features, samples.features);
  copy(compiled.tokens, samples.tokens);
  copy(compiled.labels, samples.labels);
  copy(compiled.targets, samples.targets);
  if (compiled.position == nullptr) return;
  auto* step_and_sample =
      executor.at<std::int64_t>(compiled.program, *compiled.position, microbatch);
  step_and_sample[0] = step_.step;
  step_and_sample[1] = position;
}

StepResult Engine::results(const Executor& executor, const Compiled& compiled) {
  StepResult result;
  const auto read = [&](const Binding* output) -> double {
    return output == nullptr ? 0 : *executor.at<float>(compiled.program, *output);
  };
  result.loss = read(compiled.loss);
  result.correct = read(compiled.correct);
  return result;
}

void Engine::begin_step(const StepBegin& begin) {
  CONCORD_CHECK(options_.use == EngineUse::kTraining);
  if (begin.samples < 1 || begin.samples > options_.batch) {
    fail("a step of {} samples was asked for; expected 1 to the batch of {}", begin.samples,
         options_.batch);
  }
  step_ = begin;
  accumulated_ = 0;
  options_.ranks->set_step(begin.step + 1);  // as they are counted in messages
  const StepPlace place = step_place(begin.samples);
  flights_.empty() ? training_executor_->begin_step(place) : training_executor_->add_step(place);
}

double Engine::batch_weight() const {
  const std::int64_t samples = options_.local ? own_samples(step_.samples) : step_.samples;
  return 1.0 / static_cast<double>(std::max<std::int64_t>(1, samples));
}

void Engine::accumulate(const Samples& samples) {
  if (samples.count == 0) return;  // the step ends before this rank's leaves
  CONCORD_CHECK(accumulated_ % leaf_size() == 0,
                "only the last call of a step may bring a partial leaf");
  CONCORD_CHECK(accumulated_ + samples.count <= own_samples(step_.samples));
  if (pipe_ranks() > 1) return accumulate_in_pipeline(samples);
  const auto run = [&](std::int64_t offset, std::int64_t count, bool first_of_leaf,
                       bool last_of_leaf) {
    Compiled& compiled = training(count);
    set_step_inputs(*training_executor_, compiled, batch_weight());
    const std::int64_t sample = accumulated_ + offset;
    set_batch_inputs(*training_executor_, compiled, samples, offset, position_of(sample));
    const bool last = sample + count == own_samples(step_.samples);
    training_executor_->microbatch(compiled.program, {first_of_leaf, last_of_leaf, last});
  };
  for_each_microbatch(accumulated_, samples.count, run);
  accumulated_ += samples.count;
}

StepResult Engine::reduce(std::uint32_t flags) {
  CONCORD_CHECK(accumulated_ == own_samples(step_.samples), "{} of {} samples", accumulated_,
                step_.samples);
  if (options_.local && accumulated_ == 0) return {.flags = flags};
  constexpr std::int64_t kLargestWatched = 4096;
  if (accumulated_ == 0 && pipe_ranks() > 1 && in_rounds()) accumulate_in_pipeline({});
  Compiled& compiled = training(options_.microbatch);
  set_step_inputs(*training_executor_, compiled, batch_weight());
  training_executor_->reduce(compiled.program);
  StepResult result = of_last_stage(results(*training_executor_, compiled));
  result.finite = std::isfinite(result.loss) &&
                  training_executor_->sums_are_finite(compiled.program, kLargestWatched);
  // All have seen the whole sum then, and each has looked at its part.
  constexpr std::uint32_t kNotFinite = std::uint32_t{1} << 31;
  const std::uint32_t told = flags | (result.finite ? 0 : kNotFinite);
  const std::uint32_t all = options_.local ? told : options_.ranks->any_of(told);
  result.finite = (all & kNotFinite) == 0;
  result.flags = all & ~kNotFinite;
  result.staleness = training_executor_->staleness();
  return result;
}

void Engine::update() {
  if (options_.local && accumulated_ == 0) return;  // nothing to learn
  Compiled& compiled = training(options_.microbatch);
  set_step_inputs(*training_executor_, compiled, batch_weight());
  training_executor_->update(compiled.program);
}

std::size_t Engine::events_per_step() const {
  constexpr std::size_t kWithOthers = 64;
  const Program& program = training_program();
  const auto microbatches = static_cast<std::size_t>(leaf_count() * microbatches_per_leaf());
  // Those that wait for a message come in two parts.
  const std::size_t parts = pipe_ranks() > 1 ? 2 * program.halves.size() : 0;
  return program.prologue.size() + microbatches * (program.microbatch.size() + parts) +
         program.update.size() + kWithOthers;
}

bool is_product(std::string_view op) {
  constexpr std::string_view kProducts[] = {"matmul", "conv2d", "attention",
                                            "linear_cross_entropy"};
  return std::ranges::any_of(kProducts, [&](std::string_view product) {
    return op == product || op.starts_with(std::string(product) + "_backward");
  });
}

double Engine::microbatches_of_rank() const {
  return static_cast<double>(own_samples(options_.batch)) /
         static_cast<double>(options_.microbatch);
}

double Engine::seconds_of_products_alone(int runs) {
  const Program& program = training_program();
  options_.ranks->barrier();  // nobody reads the sum of the last step
  training_executor_->begin_step(step_place(options_.batch));
  double seconds = 0;
  const auto add = [&](const std::vector<ProgramStep>& steps, double times) {
    for (const ProgramStep& step : steps) {
      if (!is_product(step.op)) continue;
      seconds += times * training_executor_->time_alone(program, step, runs);
    }
  };
  add(program.prologue, 1);
  add(program.microbatch, microbatches_of_rank());
  add(program.update, 1);
  return seconds;
}

bool is_finite(const StateStore& states, const StateStore::Entry& entry) {
  if (entry.type.dtype != DType::kF32) return true;
  const OwnedTensor values = states.read(entry);
  return std::ranges::all_of(values.as<float>(), [](float value) { return std::isfinite(value); });
}

Engine::Culprit Engine::find_nonfinite(const Samples& samples) {
  for (const StateStore::Entry& entry : states_->entries()) {
    if (is_finite(*states_, entry)) continue;
    return {fmt::format("\"{}\", as the step before left it", entry.name), /*is_state=*/true};
  }
  if (pipe_ranks() > 1) return {};  // what other ranks have sent is gone
  std::string found;
  training_executor_->begin_step(step_place(step_.samples));
  const auto look = [&](std::int64_t offset, std::int64_t count, bool, bool) {
    if (!found.empty()) return;
    Compiled& compiled = training(count);
    set_step_inputs(*training_executor_, compiled, batch_weight());
    set_batch_inputs(*training_executor_, compiled, samples, offset, position_of(offset));
    found = training_executor_->find_nonfinite(compiled.program);
  };
  for_each_microbatch(0, samples.count, look);
  return {found};
}

// Each microbatch counts as a leaf here.
StepResult Engine::evaluate(const Samples& samples, std::int64_t batch_count) {
  if (batch_count == 0) return {};
  const std::int64_t first = slice_of(batch_count).begin;
  CONCORD_CHECK(first + samples.count == slice_of(batch_count).end);
  // The sums lie at the same places in the programs of all counts.
  Compiled& any = other(evaluation_, graphs_.evaluation, options_.microbatch);
  other_executor_->begin_step({.first_leaf = first_leaf_ * microbatches_per_leaf()});
  // Where a microbatch asks the other ranks for their parts of what it reads, all need equally
  // many.
  if (meets_along_data(any.program)) {
    for (std::int64_t i = missing_microbatches(batch_count); i > 0; --i) {
      other_executor_->take_part(any.program);
    }
  }
  const auto run = [&](std::int64_t offset, std::int64_t count, bool, bool) {
    Compiled& compiled = other(evaluation_, graphs_.evaluation, count);
    set_step_inputs(*other_executor_, compiled, 1.0);
    set_batch_inputs(*other_executor_, compiled, samples, offset, first + offset);
    const bool last = offset + count == samples.count;
    other_executor_->microbatch(compiled.program, {.last_of_step = last});
  };
  if (pipe_ranks() > 1) {
    evaluate_in_pipeline(samples, first);
  } else {
    for_each_microbatch(first, samples.count, run);
  }
  if (any.program.sums_bytes > 0) other_executor_->reduce(any.program);
  const StepResult result = of_last_stage(results(*other_executor_, any));
  options_.ranks->barrier();  // all have read them
  return result;
}

std::int64_t Engine::predict(const Samples& samples, std::span<float> logits) {
  std::int64_t width = 0;
  other_executor_->begin_step();
  for_each_microbatch(0, samples.count, [&](std::int64_t offset, std::int64_t count, bool, bool) {
    Compiled& compiled = other(prediction_, graphs_.prediction, count);
    set_batch_inputs(*other_executor_, compiled, samples, offset, offset);
    other_executor_->microbatch(compiled.program, {});
    CONCORD_CHECK(compiled.logits != nullptr, "a prediction's output is \"logits\"");
    width = compiled.logits->type.shape.elements() / count;
    CONCORD_CHECK(logits.size() >= static_cast<std::size_t>(width * (offset + count)));
    std::copy_n(other_executor_->at<float>(compiled.program, *compiled.logits), width * count,
                logits.data() + width * offset);
  });
  return width;
}

}  // namespace concord::train

// Engine: computes the steps of one model, or a rank's share of them. It compiles the model's
// graphs into programs, holds the states, and cuts a batch into leaves and microbatches
// (docs/architecture.md, idea 2).
//
// A training step:
//   engine.begin_step({.step = s, .samples = n, .learning_rate = r});
//   engine.accumulate(samples);       one call with the whole batch, or several with whole leaves
//   StepResult result = engine.reduce();
//   engine.update();                  or not: a step without update() leaves every state as it was
//
// Where steps overlap (overlaps_steps), stream() is these four, of which the end comes later.
//
// The states after a step depend on the leaves alone, not on how many calls brought them or which
// rank computed them. With several ranks join_ranks(), begin_step(), reduce(), update() and
// evaluate() are collective; ranks of one machine hold the states once (parallel/partition.h). Of
// local ranks, reduce() and update() are not, and their losses are of their own samples. Used by
// one thread; kernels run on base/parallel.h's threads.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "concord/comm/communicator.h"
#include "concord/data/loader.h"
#include "concord/graph/graph.h"
#include "concord/kernels/kernel.h"
#include "concord/nn/step.h"
#include "concord/parallel/plan.h"
#include "concord/runtime/executor.h"

namespace concord::train {

// Builds the model's graphs for a given number of samples (nn/step.h makes such functions). Batch
// inputs: "features" f32 or "tokens" i32 [samples, ...]; "labels" i32 [samples, ...] or "targets"
// f32 [samples, width];
// optionally "position" i64 [2], {step, index of the first sample in the batch}. Step inputs:
// "batch_weight" f32 [], the reciprocal of the batch's samples, and "learning_rate" f32 [].
struct ModelGraphs {
  std::function<Graph(std::int64_t samples)> training;    // outputs "loss" and maybe "correct"
  std::function<Graph(std::int64_t samples)> evaluation;  // the same outputs, states unchanged
  std::function<Graph(std::int64_t samples)> prediction;  // output "logits", no leaf_sum
};

// The graphs of a model from the zoo or of one's own; `options.microbatch` is set for each.
ModelGraphs model_graphs(const nn::StepOptions& options);

// What an engine is for. Only one for training holds optimizer states and compiles the training
// program; one for evaluation can also predict.
enum class EngineUse { kTraining, kEvaluation, kPrediction };

struct EngineOptions {
  EngineUse use = EngineUse::kTraining;
  std::int64_t batch = 0;
  std::int64_t leaves = 0;      // 0: default_leaves
  std::int64_t microbatch = 0;  // 0: a whole leaf
  Recompute recompute = Recompute::kNone;
  std::uint64_t seed = 0;
  DType precision = DType::kF32;  // of the computation: f32 or bf16; states are f32
  KernelPolicy policy;
  comm::Communicator* ranks = nullptr;  // who train together, and outlive the engine; null: alone
  // How they divide the model. An empty mesh: along "data" alone.
  parallel::Plan plan = {};
  // Of each rank along "data", in order; empty: equally many, as far as that goes.
  std::vector<std::int64_t> leaves_of_ranks = {};
  std::size_t bucket_bytes = CompileOptions().bucket_bytes;
  // Each rank takes steps of its own, on its own samples (local_sync.h).
  bool local = false;
  // Programs are compiled, and there is no memory for states and workspace before allocate().
  bool only_planned = false;
  // What lies in a file in a folder, of a training engine: the optimizer's states, activations.
  bool offload_states = false;
  bool offload_activations = false;
  std::filesystem::path offload_dir = {};
};

// How many leaves a batch is cut into when nothing else is said: the largest power of two up to 8
// for which a leaf has at least 16 samples and at least 2000 FLOPs for each parameter, so that a
// leaf fills the kernels and adding up its gradient costs little. Depends on the batch and the
// model alone.
std::int64_t default_leaves(std::int64_t batch, double flops_per_sample, std::int64_t parameters);

// Samples handed to the engine. `features` or `tokens` is empty, and `targets` or `labels`.
struct Samples {
  std::int64_t count = 0;
  std::span<const float> features = {};
  std::span<const std::int32_t> tokens = {};
  std::span<const std::int32_t> labels = {};
  std::span<const float> targets = {};
};

struct StepResult {
  double loss = 0;     // mean over the samples
  double correct = 0;  // samples classified correctly; 0 where the model has no such output
  // Of a training step: the loss, the statistics of norms, and the gradients of small parameters
  // are finite. The loss alone would not tell: a ReLU may turn what is not a number into 0.
  bool finite = true;
  std::uint32_t flags = 0;  // of any rank
  // How many updates lie between the weights of which rank 0 has taken gradients and the update by
  // them; 0 but of schedules that do not flush (parallel/schedule.h).
  std::int64_t staleness = 0;
};

class Engine {
 public:
  // Compiles the program of its use, places the states and fills them by their initialisers.
  // Throws Error when the options do not fit each other, the model or the processor.
  Engine(ModelGraphs graphs, const EngineOptions& options);
  // Where steps are in flight, as after an error: for after Communicator::abort().
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  // After the options said only_planned; else it has happened. Throws Error where there is no room
  // for what is offloaded.
  void allocate();
  // Several ranks call it before anything else that is collective; without others it does nothing.
  // Then the states are what their initialisers say.
  void join_ranks();
  struct StepBegin {
    std::int64_t step = 0;
    std::int64_t samples = 0;  // of the whole step; at most EngineOptions::batch
    double learning_rate = 0;
  };
  void begin_step(const StepBegin& begin);
  // The next samples of this rank: whole leaves, except that the last call brings what is left.
  void accumulate(const Samples& samples);
  // `flags`: what this rank tells the others; the result has those of all.
  StepResult reduce(std::uint32_t flags = 0);
  void update();

  // Whether the ranks along "pipe" need not end one step to begin another.
  bool overlaps_steps() const;
  // Of a rank at this place along "pipe", at once.
  int most_steps_in_flight(int place) const;
  // A step, of all of this rank's samples. Those before it go on meanwhile, and this one when the
  // next is called. Returns the result of a step before it, each in its turn: those of the last are
  // returned by drain(), after which all states are those after the last step. Both are collective.
  std::optional<StepResult> stream(const StepBegin& begin, const Samples& samples,
                                   std::uint32_t flags = 0);
  std::vector<StepResult> drain();

  // Whether the states are those before a step or after one (Executor::states_are_whole).
  bool states_are_whole() const { return training_executor_->states_are_whole(); }

  // After a reduce() that was not finite: the first state that is not finite, if there is one; else
  // computes the leaves of the step again, watching every op, and describes the first that makes a
  // number that is not finite. `samples`: the whole batch.
  struct Culprit {
    std::string description;  // empty where none was found
    bool is_state = false;
  };
  Culprit find_nonfinite(const Samples& samples);

  // The moving averages of the parameters, where the optimizer keeps some, and their older versions
  // become the parameters as they are now: after whoever writes these from outside.
  void start_averages();

  // Sums over a batch with the states as they are, and for the parameters their averages where
  // there are some: loss is the sum, not the mean. `samples`: this rank's part of the `count` of
  // the batch. predict() takes the same averages.
  StepResult evaluate(const Samples& samples, std::int64_t count);
  StepResult evaluate(const Samples& samples) { return evaluate(samples, samples.count); }
  // Writes the output "logits" for each sample, row after row; returns the width of a row.
  std::int64_t predict(const Samples& samples, std::span<float> logits);

  // Compiles what a last, shorter batch of `samples` needs, so that it does not happen
  // mid-training.
  void prepare_training(std::int64_t samples);
  void prepare_evaluation(std::int64_t samples);

  // Which samples of a batch of `count` this rank takes part with: in an evaluation [begin, end);
  // in training those of its leaves, in this order.
  data::Slice slice_of(std::int64_t count) const;
  std::vector<data::Slice> training_slices(std::int64_t count) const;

  StateStore& states() const { return *states_; }
  const KernelPolicy& policy() const { return options_.policy; }
  const Program& training_program() const { return training_.at(options_.microbatch)->program; }
  std::int64_t leaves() const { return options_.leaves; }
  std::vector<std::int64_t> leaves_of_ranks() const;
  std::int64_t microbatch_size() const { return options_.microbatch; }
  std::int64_t batch() const { return options_.batch; }
  comm::Communicator& ranks() const { return *options_.ranks; }
  // Full ones that this rank computes in a step; a part of one counts as that.
  double microbatches_of_rank() const;
  DType precision() const { return options_.precision; }
  std::int64_t parameter_count() const;
  // Of one training step with a full batch.
  double flops_per_step() const { return flops_per_step_; }
  // How the ranks divide the model, as it was decided.
  const parallel::Plan& plan() const { return options_.plan; }
  // Times each op of the full microbatch's program from here on; null switches it off.
  void set_timing(Executor::Timing* timing) { training_executor_->set_timing(timing); }
  // Every op of a training step is written down there from here on; null: nowhere.
  void set_trace(Trace* trace) { training_executor_->set_trace(trace); }
  // From here on `replace` has the kernels of each program, such as by those that sleep
  // (runtime/sleep_kernel.h): for before the first step.
  void pretend(std::function<void(Program&)> replace);
  // So many events of a step that is at most, this rank's alone; with what it does with others.
  std::size_t events_per_step() const;
  // Seconds of a training step's products (is_product), each run by itself, `runs` times
  // (Executor::time_alone). For after a step.
  double seconds_of_products_alone(int runs);
  // Seconds of each step of the training program in a training step with a learning rate of 0,
  // other ranks not asked, of up to 8 full microbatches (Executor::rehearse). `samples`:
  // this rank's of a full batch. The states may be lost.
  Executor::Rehearsal rehearse(const Samples& samples);
  // The gradients of a training step with these samples, those of each parameter after those of the
  // one before, as they lie in memory. For one rank, whose sums are not encoded.
  std::vector<float> gradients(const Samples& samples);
  // Of the memory in which training and evaluation take turns.
  std::size_t workspace_bytes() const { return training_executor_->workspace_bytes(); }
  // Of the other ranks' workspaces, what this one reads and writes where it lies.
  std::size_t reached_bytes() const;
  // Of states and activations, what lies in files.
  std::size_t offloaded_bytes() const {
    return states_->offloaded_bytes() + training_executor_->offloaded_bytes();
  }
  // Of what is offloaded, most that is in memory at once. Updates and microbatches take turns.
  std::size_t offloaded_window_bytes() const;
  // Of the states, and of what a microbatch computes, what is in memory at once: with the update's
  // window of the ones and, as far as it is larger, a microbatch's of the others.
  std::size_t resident_state_bytes() const;
  std::size_t resident_workspace_bytes() const;
  // Of memory that this rank has for what it tells others, the workspace apart.
  std::size_t communication_bytes() const {
    return ranks().bytes() - workspace_->shared_bytes() + training_executor_->encoded_bytes();
  }
  // Of all sums over leaves that this rank keeps at once, of training and of evaluation.
  std::size_t sum_bytes() const;

 private:
  // A program, and its inputs and outputs looked up once; null where the model has none.
  struct Compiled {
    explicit Compiled(Program p);
    Compiled(const Compiled&) = delete;  // the pointers are into `program`
    Compiled& operator=(const Compiled&) = delete;
    Program program;
    const Binding *features, *tokens, *labels, *targets, *position, *batch_weight, *learning_rate;
    const Binding *loss, *correct, *logits;
  };
  using Programs = std::map<std::int64_t, std::unique_ptr<Compiled>>;  // by samples

  std::int64_t leaf_size() const;
  std::int64_t microbatches_per_leaf() const;
  std::int64_t microbatches() const;    // of a step
  bool has_single_microbatch() const {  // of this rank
    return leaf_count() * microbatches_per_leaf() == 1;
  }
  // Ranks sum after each leaf (runtime/round_sums.h), and rank r of N has leaves r, r + N, ...
  bool in_rounds() const;
  std::int64_t leaf_count() const { return end_leaf_ - first_leaf_; }
  std::int64_t leaf_at(std::int64_t i) const;           // of this rank's leaves
  std::int64_t position_of(std::int64_t sample) const;  // of this rank's samples, in the batch
  std::int64_t own_samples(std::int64_t count) const;   // of a batch of so many
  // Of an evaluation, beside the rank along `data` that has most; who has none stands by for one.
  std::int64_t missing_microbatches(std::int64_t samples) const;
  StepPlace step_place(std::int64_t samples) const;
  void check_rounds() const;
  void check_encoders() const;
  int height_of_encoders() const;
  void choose_divisions();
  void join_axes();
  void plan_pipeline();
  // Of an asynchronous schedule.
  void check_asynchronous() const;
  std::map<std::string, int> older_versions(const Graph& graph) const;
  int own_staleness() const;
  double flops_of_step(const Graph& whole) const;
  void check_totals(const Graph& graph) const;
  void initialize_states(const Graph& graph);
  void read_averages(Graph& graph) const;
  LowerOptions lower_options(Recompute recompute);
  Compiled& training(std::int64_t samples);
  Compiled& other(Programs& programs, const std::function<Graph(std::int64_t)>& build,
                  std::int64_t samples);
  void set_step_inputs(Executor& executor, const Compiled& compiled, double batch_weight) const;
  void set_batch_inputs(Executor& executor, const Compiled& compiled, const Samples& samples,
                        std::int64_t first, std::int64_t position,
                        std::int64_t microbatch = 0) const;
  bool sums_over_ranks() const { return data_->size() > 1 && !options_.local; }
  int tensor_ranks() const { return options_.plan.mesh.extent(parallel::kTensorAxis); }
  int pipe_ranks() const { return options_.plan.mesh.extent(parallel::kPipeAxis); }
  // Whether ranks read each other's memory, beside sums and states.
  bool shares_workspace() const { return tensor_ranks() > 1 || pipe_ranks() > 1; }
  // Of a program for training or for evaluation: of the stages of a rank.
  int halves(bool backward) const;
  struct Microbatch {
    std::int64_t offset = 0, samples = 0;  // of those given
    MicrobatchPlace place;
    Compiled* compiled = nullptr;
  };
  void run_pipeline(Executor& executor, const std::vector<Microbatch>& microbatches, bool backward,
                    const std::function<void(const Microbatch&, std::int64_t)>& set_inputs);
  // Along the pipe, the results of the last stage.
  StepResult of_last_stage(const StepResult& own);
  void accumulate_in_pipeline(const Samples& samples);
  // `most`: that a rank along data has; 0: as many.
  const PipelineOrder& order_of(std::int64_t microbatches, bool backward, std::int64_t most = 0);
  void turn_to(std::size_t step);
  void go_backward();
  void end_first_step();
  void tell_first_ended();
  StepResult next_told();
  void evaluate_in_pipeline(const Samples& samples, std::int64_t first);
  double batch_weight() const;
  static StepResult results(const Executor& executor, const Compiled& compiled);
  template <typename Body>
  void for_each_microbatch(std::int64_t first, std::int64_t count, Body body) const;

  ModelGraphs graphs_;
  EngineOptions options_;
  comm::Alone alone_;
  comm::Communicator* data_ = nullptr;          // of the ranks, those who share the leaves
  comm::Communicator* tensor_ = nullptr;        // and those who share a leaf's work,
  comm::Communicator* pipe_ = nullptr;          // or its layers
  double flops_per_step_ = 0;                   // of all who share it
  std::int64_t first_leaf_ = 0, end_leaf_ = 0;  // of this rank
  std::unique_ptr<StateStore> states_;
  std::shared_ptr<Workspace> workspace_;
  const Program* first_program_ = nullptr;  // of the engine's use
  Programs training_, evaluation_, prediction_;
  std::vector<Layout> sums_layouts_;  // of the whole graph's leaf_sums
  std::unique_ptr<Executor> training_executor_;
  std::unique_ptr<Executor> other_executor_;  // evaluation and prediction
  StepBegin step_;
  std::int64_t accumulated_ = 0;  // samples of the step so far
  // Of steps and evaluations of so many microbatches.
  std::map<std::tuple<std::int64_t, bool, std::int64_t>, PipelineOrder> orders_;
  std::vector<const Program*> pipeline_programs_;
  std::vector<Microbatch> pipeline_microbatches_;
  std::function<void(Program&)> pretend_;

  // Of steps that overlap: this rank's microbatches of those in flight are numbered from drain() to
  // drain(), and `pipeline_microbatches_` begins with number `first_kept_`.
  struct Flight {
    StepBegin begin;
    std::int64_t microbatches = 0, done = 0;
    std::uint32_t flags = 0;
  };
  std::vector<Flight> flights_;
  std::int64_t forwards_ = 0, backwards_ = 0, first_kept_ = 0;
  std::int64_t streamed_ = 0;     // steps
  std::deque<StepResult> ended_;  // by this rank alone: the results are its own
  static constexpr std::size_t kTold = 4 + 32;
  struct Told {  // what all ranks' sum up to
    std::array<float, kTold> numbers;
    comm::Ticket ticket;
  };
  std::deque<Told> told_;
  comm::Communicator* telling_ = nullptr;  // all ranks, beside what they do in steps
};

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

// The state that holds the moving average of a parameter; null where there is none.
const StateStore::Entry* average_of(const StateStore& states, const StateStore::Entry& parameter);

// Whether a step's efficiency counts the op among its products: matrix products, convolutions, and,
// whole, with the softmax between their products, attention and the linear cross-entropy.
bool is_product(std::string_view op);

// Whether all numbers of a state are finite.
bool is_finite(const StateStore& states, const StateStore::Entry& entry);

}  // namespace concord::train

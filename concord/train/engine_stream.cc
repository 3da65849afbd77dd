// Steps of an asynchronous schedule: gradients of weights that are some updates old
// (parallel/schedule.h, staleness), and steps that overlap along "pipe". The order of a rank is one
// 1F1B over the microbatches of all steps until a drain: of those that went forwards, as many wait
// to go backwards as there are stages behind. A step is updated when its last has come back.
#include <algorithm>
#include <cmath>

#include "concord/base/error.h"
#include "concord/train/engine.h"
#include "concord/train/pipeline.h"

namespace concord::train {
namespace {

using parallel::Schedule;

constexpr std::int64_t kLargestWatched = 4096;

}  // namespace

Engine::~Engine() {
  try {
    for (const Told& told : told_) telling_->wait(told.ticket);  // they read and write it
  } catch (const std::exception&) {
    // They came to nothing, which whoever is told of it knows.
  }
}

bool Engine::overlaps_steps() const { return train::overlaps_steps(options_.plan); }

// Nobody has a stage behind the last.
int Engine::own_staleness() const {
  return static_cast<int>(parallel::staleness(options_.plan.pipeline(), pipe_->rank()));
}

// As many as wait to go backwards, and the one that begins; and while one begins of which the
// weights need not be newer than they are.
int Engine::most_steps_in_flight(int place) const {
  if (!overlaps_steps()) return 1;
  const auto stale = static_cast<int>(parallel::staleness(options_.plan.pipeline(), place));
  return 1 + std::min(stale, pipe_ranks() - 1 - place);
}

void Engine::check_asynchronous() const {
  const parallel::Plan& plan = options_.plan;
  if (!parallel::is_asynchronous(plan.schedule)) return;
  const std::string_view name = name_of(plan.schedule);
  if (plan.schedule == Schedule::kPipeDream && microbatches() != data_->size()) {
    fail(
        "pipeline {}: a step of {} microbatches on {} rank{} along data, expected one of each, "
        "after which the weights are updated: set train.leaves = {}, train.microbatch = 0, and "
        "train.batch to the samples of an update, such as {}",
        name, microbatches(), data_->size(), data_->size() == 1 ? "" : "s", data_->size(),
        options_.microbatch * data_->size());
  }
}

std::map<std::string, int> Engine::older_versions(const Graph& graph) const {
  const parallel::Plan& plan = options_.plan;
  std::map<std::string, int> older;
  if (options_.use != EngineUse::kTraining || !parallel::is_asynchronous(plan.schedule)) {
    return older;
  }
  for (const State& state : graph.states) {
    if (state.role != State::Role::kParameter) continue;
    const std::string& name = graph.value(state.value).name;
    const auto stages = plan.stages.find(name);
    const std::vector<int> of = stages == plan.stages.end() ? std::vector{0} : stages->second;
    const auto stale = [&](int stage) {
      return static_cast<int>(parallel::staleness(plan.pipeline(), stage));
    };
    for (const int stage : of) {
      if (stale(stage) == stale(of[0])) continue;
      fail(
          "pipeline {}: the stages {} and {} share \"{}\", which would be of two ages in them; "
          "expected parallel.vertical_sync = true, or another schedule",
          name_of(plan.schedule), of[0], stage, name);
    }
    older[name] = stale(of[0]);
  }
  return older;
}

void Engine::turn_to(std::size_t step) {
  training_executor_->turn_to(step);
  step_ = flights_[step].begin;
  options_.ranks->set_step(step_.step + 1);
}

std::optional<StepResult> Engine::stream(const StepBegin& begin, const Samples& samples,
                                         std::uint32_t flags) {
  const auto most = static_cast<std::size_t>(most_steps_in_flight(pipe_->rank()));
  while (flights_.size() >= most) go_backward();
  begin_step(begin);
  CONCORD_CHECK(samples.count == own_samples(begin.samples), "a pipeline takes a step at once");

  if (streamed_ == 0) pipeline_microbatches_.clear();  // such as an evaluation's
  const std::int64_t first = forwards_;
  pipeline_microbatches_.erase(pipeline_microbatches_.begin(),
                               pipeline_microbatches_.begin() + (backwards_ - first_kept_));
  first_kept_ = backwards_;
  for_each_microbatch(
      0, samples.count, [&](std::int64_t offset, std::int64_t count, bool starts, bool ends) {
        Compiled& compiled = training(count);
        set_step_inputs(*training_executor_, compiled, batch_weight());
        pipeline_microbatches_.push_back({offset, count, {starts, ends}, &compiled});
      });
  const std::int64_t end = first_kept_ + std::ssize(pipeline_microbatches_);
  flights_.push_back({.begin = begin, .microbatches = end - first, .flags = flags});
  pipeline_programs_.clear();
  for (const Microbatch& microbatch : pipeline_microbatches_) {
    pipeline_programs_.push_back(&microbatch.compiled->program);
  }
  if (end > first) {
    training_executor_->begin_pipeline(order_of(end - first, /*backward=*/true),
                                       {pipeline_programs_, first_kept_, begin.step + 1});
  }
  while (forwards_ < end) {
    turn_to(flights_.size() - 1);
    const Microbatch& microbatch =
        pipeline_microbatches_[static_cast<std::size_t>(forwards_ - first_kept_)];
    set_batch_inputs(*training_executor_, *microbatch.compiled, samples, microbatch.offset,
                     position_of(microbatch.offset), forwards_);
    training_executor_->half(microbatch.compiled->program, 0, forwards_, microbatch.place);
    ++forwards_;
    if (forwards_ - backwards_ > pipe_ranks() - 1 - pipe_->rank()) go_backward();
  }
  if (flights_.size() == 1 && end == first) end_first_step();  // of the other ranks' samples

  options_.ranks->set_step(begin.step + 1);
  // Of the steps that all ranks have ended; the first rank has most in flight. Another rank may
  // come to telling when this one has updated what it waits for, such as a norm over all stages: so
  // that is not waited for before.
  const int most_of_all = most_steps_in_flight(0);
  if (++streamed_ > most_of_all) tell_first_ended();
  if (std::ssize(told_) <= most_of_all) return std::nullopt;
  return next_told();
}

// The microbatch that waits longest, and what ends with it.
void Engine::go_backward() {
  turn_to(0);
  Flight& flight = flights_[0];
  if (flight.done < flight.microbatches) {
    const Microbatch& microbatch =
        pipeline_microbatches_[static_cast<std::size_t>(backwards_ - first_kept_)];
    training_executor_->half(microbatch.compiled->program, 1, backwards_, microbatch.place);
    ++backwards_;
    ++flight.done;
  }
  while (!flights_.empty() && flights_[0].done == flights_[0].microbatches) end_first_step();
}

void Engine::end_first_step() {
  turn_to(0);
  Compiled& compiled = training(options_.microbatch);
  set_step_inputs(*training_executor_, compiled, batch_weight());
  training_executor_->reduce(compiled.program);
  StepResult own = results(*training_executor_, compiled);
  own.finite = std::isfinite(own.loss) &&
               training_executor_->sums_are_finite(compiled.program, kLargestWatched);
  own.flags = flights_[0].flags;
  own.staleness = training_executor_->staleness();
  training_executor_->update(compiled.program);
  flights_.erase(flights_.begin());
  ended_.push_back(own);
}

// Who share the layers have other parts of the result, and who share the samples the same.
void Engine::tell_first_ended() {
  const StepResult own = ended_.front();
  ended_.pop_front();
  const bool is_teller = data_->rank() == 0 && tensor_->rank() == 0;
  Told& told = told_.emplace_back();
  told.numbers.fill(0);
  if (is_teller) {
    told.numbers[0] = static_cast<float>(own.loss);
    told.numbers[1] = static_cast<float>(own.correct);
    told.numbers[2] = pipe_->rank() == 0 ? static_cast<float>(own.staleness) : 0;
  }
  told.numbers[3] = own.finite ? 0 : 1;
  for (std::size_t bit = 0; bit < 32; ++bit) {
    told.numbers[4 + bit] = static_cast<float>(own.flags >> bit & 1);
  }
  told.ticket = telling_->start(comm::all_reduce(told.numbers, told.numbers, "loss"));
}

StepResult Engine::next_told() {
  const Told& told = told_.front();
  telling_->wait(told.ticket);
  StepResult result{.loss = told.numbers[0],
                    .correct = told.numbers[1],
                    .finite = told.numbers[3] == 0,
                    .flags = 0,
                    .staleness = static_cast<std::int64_t>(told.numbers[2])};
  for (std::size_t bit = 0; bit < 32; ++bit) {
    if (told.numbers[4 + bit] > 0) result.flags |= std::uint32_t{1} << bit;
  }
  told_.pop_front();
  return result;
}

std::vector<StepResult> Engine::drain() {
  while (!flights_.empty()) go_backward();
  if (forwards_ > 0) training_executor_->end_pipeline();
  forwards_ = backwards_ = first_kept_ = streamed_ = 0;
  while (!ended_.empty()) tell_first_ended();
  std::vector<StepResult> results;
  while (!told_.empty()) results.push_back(next_told());
  return results;
}

}  // namespace concord::train

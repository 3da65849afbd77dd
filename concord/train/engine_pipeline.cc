// How an engine computes the stages of a rank along "pipe".
#include <algorithm>
#include <array>

#include "concord/base/error.h"
#include "concord/parallel/stages.h"
#include "concord/train/engine.h"
#include "concord/train/pipeline.h"

namespace concord::train {

int Engine::halves(bool backward) const {
  if (pipe_ranks() == 1) return 1;
  return backward ? static_cast<int>(parallel::halves_of(options_.plan).size())
                  : options_.plan.chunks;
}

void Engine::plan_pipeline() {
  const std::int64_t microbatches = leaf_count() * microbatches_per_leaf();
  check_pipeline(options_.plan.pipeline(microbatches));
  const int rank = pipe_->rank();
  // Steps that overlap are as one of more microbatches.
  const std::int64_t at_once =
      overlaps_steps() ? 2 * std::max<std::int64_t>(microbatches, pipe_ranks()) : microbatches;
  training_executor_->plan_pipeline(order_of_steps(options_.plan, rank, at_once));
  other_executor_->plan_pipeline(order_of_evaluations(options_.plan, rank, microbatches));
}

const PipelineOrder& Engine::order_of(std::int64_t microbatches, bool backward, std::int64_t most) {
  const auto [order, is_new] = orders_.try_emplace({microbatches, backward, most});
  if (is_new) {
    order->second = backward ? order_of_steps(options_.plan, pipe_->rank(), microbatches, most)
                             : order_of_evaluations(options_.plan, pipe_->rank(), microbatches);
  }
  return order->second;
}

void Engine::run_pipeline(Executor& executor, const std::vector<Microbatch>& microbatches,
                          bool backward,
                          const std::function<void(const Microbatch&, std::int64_t)>& set_inputs) {
  const auto count = static_cast<std::int64_t>(microbatches.size());
  const bool has_rounds = backward && in_rounds();
  const PipelineOrder& order =
      order_of(count, backward, has_rounds ? step_place(step_.samples).rounds : 0);
  pipeline_programs_.clear();
  for (const Microbatch& microbatch : microbatches) {
    pipeline_programs_.push_back(&microbatch.compiled->program);
  }
  if (count > 0) executor.begin_pipeline(order, {pipeline_programs_});
  for (const Turn& turn : order.of_all) {
    if (turn.microbatch >= count) {
      executor.stand_by(training(options_.microbatch).program, static_cast<std::size_t>(turn.half),
                        turn.microbatch);
      continue;
    }
    const Microbatch& microbatch = microbatches[static_cast<std::size_t>(turn.microbatch)];
    if (turn.half == 0) set_inputs(microbatch, turn.microbatch);
    executor.half(microbatch.compiled->program, turn.half, turn.microbatch, microbatch.place);
  }
  if (count > 0) executor.end_pipeline();
}

// The sums over ranks begin when all microbatches are done, since ranks that have other numbers of
// them do halves in other orders. Where ranks sum in rounds, all keep to the order of the most, and
// stand by where they have none: also a rank of which the step has no samples.
void Engine::accumulate_in_pipeline(const Samples& samples) {
  CONCORD_CHECK(samples.count == own_samples(step_.samples), "a pipeline takes a step at once");
  pipeline_microbatches_.clear();
  for_each_microbatch(0, samples.count,
                      [&](std::int64_t offset, std::int64_t count, bool first, bool last) {
                        Compiled& compiled = training(count);
                        set_step_inputs(*training_executor_, compiled, batch_weight());
                        pipeline_microbatches_.push_back({offset, count, {first, last}, &compiled});
                      });
  run_pipeline(*training_executor_, pipeline_microbatches_, /*backward=*/true,
               [&](const Microbatch& microbatch, std::int64_t m) {
                 set_batch_inputs(*training_executor_, *microbatch.compiled, samples,
                                  microbatch.offset, position_of(microbatch.offset), m);
               });
  accumulated_ = samples.count;
}

void Engine::evaluate_in_pipeline(const Samples& samples, std::int64_t first) {
  pipeline_microbatches_.clear();
  for_each_microbatch(first, samples.count,
                      [&](std::int64_t offset, std::int64_t count, bool, bool) {
                        Compiled& compiled = other(evaluation_, graphs_.evaluation, count);
                        set_step_inputs(*other_executor_, compiled, 1.0);
                        pipeline_microbatches_.push_back({offset, count, {}, &compiled});
                      });
  if (pipeline_microbatches_.empty()) return;
  run_pipeline(*other_executor_, pipeline_microbatches_, /*backward=*/false,
               [&](const Microbatch& microbatch, std::int64_t m) {
                 set_batch_inputs(*other_executor_, *microbatch.compiled, samples,
                                  microbatch.offset, first + microbatch.offset, m);
               });
}

// The others have 0.
StepResult Engine::of_last_stage(const StepResult& own) {
  if (pipe_ranks() == 1) return own;
  std::array<float, 2> sums = {static_cast<float>(own.loss), static_cast<float>(own.correct)};
  pipe_->run(comm::all_reduce(sums, sums, "loss"));
  StepResult result = own;
  result.loss = sums[0];
  result.correct = sums[1];
  return result;
}

}  // namespace concord::train

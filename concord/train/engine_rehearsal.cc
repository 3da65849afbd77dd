// Training steps that end without an update (engine.h, rehearse and gradients).
#include "concord/base/error.h"
#include "concord/train/engine.h"

namespace concord::train {

Executor::Rehearsal Engine::rehearse(const Samples& samples) {
  constexpr std::ptrdiff_t kMost = 8;  // microbatches: a step may have any number
  begin_step({.samples = options_.batch});
  Compiled& compiled = training(options_.microbatch);
  set_step_inputs(*training_executor_, compiled, batch_weight());
  std::vector<std::int64_t> offsets;  // of full microbatches
  std::vector<MicrobatchPlace> places;
  for_each_microbatch(0, samples.count,
                      [&](std::int64_t offset, std::int64_t count, bool first, bool last) {
                        if (count < options_.microbatch || std::ssize(places) == kMost) return;
                        offsets.push_back(offset);
                        places.push_back({first, last});
                      });
  std::vector<Turn> turns;
  for (std::int64_t m = 0; m < std::ssize(offsets); ++m) turns.push_back({0, m});
  if (pipe_ranks() > 1) turns = order_of(std::ssize(offsets), /*backward=*/true).own;
  return training_executor_->rehearse(compiled.program, turns, places, [&](std::int64_t m) {
    const std::int64_t offset = offsets[static_cast<std::size_t>(m)];
    set_batch_inputs(*training_executor_, compiled, samples, offset, position_of(offset), m);
  });
}

std::vector<float> Engine::gradients(const Samples& samples) {
  CONCORD_CHECK(options_.ranks->size() == 1 && options_.plan.codecs.empty());
  begin_step({.samples = samples.count});
  accumulate(samples);
  reduce();
  std::vector<float> all;
  const Program& program = training_program();
  for (const Sum& sum : program.sums) {
    const StateStore::Entry* state = states_->find(sum.name);
    if (state == nullptr || state->role != State::Role::kParameter) continue;
    const auto* const own = training_executor_->at<float>(program, {.address = sum.address});
    all.insert(all.end(), own, own + sum.stored_elements);
  }
  return all;
}

}  // namespace concord::train

// How long a step's parts take by themselves, for the simulator.
#include "concord/base/clock.h"
#include "concord/runtime/executor.h"

namespace concord {

// In the place of what would be received. (Numbers that are almost zero would take their time.)
void Executor::make_up_messages(const Program& program, std::int64_t microbatch) {
  const Bases bases = this->bases(program, microbatch);
  for (const ProgramStep& step : program.microbatch) {
    if (!step.message || step.message->is_send) continue;
    const Value& value = program.graph.value(program.graph.node(step.node).outputs[0]);
    const auto count = static_cast<std::size_t>(value.layout.stored_elements(value.type.shape));
    std::byte* const data = resolve(bases, step.operands[0]);
    const auto fill = [&]<typename T>(T* numbers) {
      for (std::size_t i = 0; i < count; ++i) {
        numbers[i] = static_cast<T>(static_cast<float>(i % 101) * 1e-4F - 5e-3F);
      }
    };
    if (value.type.dtype == DType::kF32) fill(reinterpret_cast<float*>(data));
    if (value.type.dtype == DType::kBF16) fill(reinterpret_cast<BF16*>(data));
  }
}

Executor::Rehearsal Executor::rehearse(
    const Program& program, std::span<const Turn> turns, std::span<const MicrobatchPlace> places,
    const std::function<void(std::int64_t microbatch)>& set_inputs) {
  take_turn();
  take_sums(program);
  std::size_t buckets = 0;
  for (const ProgramHalf& half : program.halves) buckets += half.buckets.size();
  Rehearsal result{.prologue = {},
                   .update = {},
                   .microbatches = {places.size(), std::vector<double>(program.microbatch.size())},
                   .inputs = std::vector<double>(places.size()),
                   .additions = {places.size(), std::vector<double>(buckets)}};
  const auto rehearse = [&](const std::vector<ProgramStep>& steps, std::vector<double>& seconds) {
    seconds.resize(steps.size());
    run(program, steps, 0, steps.size(), &seconds, 0, /*alone=*/true);
  };
  rehearse(program.prologue, result.prologue);
  for (const Turn& turn : turns) {
    const auto m = static_cast<std::size_t>(turn.microbatch);
    if (turn.half == 0) {
      make_up_messages(program, turn.microbatch);
      const double start = now_seconds();
      set_inputs(turn.microbatch);
      result.inputs[m] = now_seconds() - start;
    }
    rehearse_half(program, turn, places[m], result);
  }
  rehearse(program.update, result.update);
  states_.changed();
  return result;
}

// As run_half, but that contributions are not added up over ranks.
void Executor::rehearse_half(const Program& program, const Turn& turn, const MicrobatchPlace& place,
                             Rehearsal& result) {
  const auto h = static_cast<std::size_t>(turn.half), m = static_cast<std::size_t>(turn.microbatch);
  const ProgramHalf& half = program.halves[h];
  const auto run_until = [&](std::size_t done, std::size_t end) {
    run(program, program.microbatch, done, end, &result.microbatches[m], turn.microbatch,
        /*alone=*/true);
    return end;
  };
  std::size_t done = h == 0 ? 0 : program.halves[h - 1].end;
  if (program.sums_bytes > 0 && !program.in_rounds) {
    std::size_t bucket = 0;
    for (std::size_t before = 0; before < h; ++before) {
      bucket += program.halves[before].buckets.size();
    }
    sums_bases_[h] = sums(h).next();
    sums(h).begin_microbatch(place);
    for (std::size_t b = 0; b < half.buckets.size(); ++b) {
      done = run_until(done, half.bucket_ends[b]);
      const double start = now_seconds();
      sums(h).add(half.buckets[b]);
      result.additions[m][bucket + b] = now_seconds() - start;
    }
  }
  run_until(done, half.end);
  if (program.sums_bytes > 0 && !program.in_rounds) sums(h).end_microbatch();
}

}  // namespace concord

// Activations in a file: when they are asked for and given back, and that nothing else changes.
#include "concord/runtime/offload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "concord/graph/builder.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/step.h"
#include "concord/runtime/executor.h"
#include "concord/runtime/state_store.h"

namespace concord {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

constexpr std::size_t kMiB = std::size_t{1} << 20;

// Steps that read and write so many bytes each.
std::vector<ProgramStep> steps_of(std::size_t count, std::size_t bytes) {
  std::vector<ProgramStep> steps(count);
  for (ProgramStep& step : steps) step.bytes = bytes;
  return steps;
}

// First and last steps.
std::vector<std::pair<std::size_t, std::size_t>> times(const std::vector<OffloadedStay>& stays) {
  std::vector<std::pair<std::size_t, std::size_t>> times;
  for (const OffloadedStay& stay : stays) times.emplace_back(stay.first, stay.last);
  return times;
}

TEST(OffloadedStays, EndWhereALongTimeWithoutUseFollows) {
  const std::vector<ProgramStep> steps = steps_of(64, kMiB);  // a sixteenth is 4 of them
  const std::vector<std::size_t> uses = {3, 4, 4, 6, 10, 15, 60};
  const std::vector<OffloadedStay> stays = stays_of_activation(steps, uses, kMiB);
  EXPECT_THAT(times(stays), ElementsAre(Pair(3, 10), Pair(15, 15), Pair(60, 60)));
  EXPECT_TRUE(stays[0].range.is_read_again);
  EXPECT_FALSE(stays[2].range.is_read_again);
  EXPECT_THAT(times(stays_of_activation(steps, uses, kMiB / 8)), ElementsAre(Pair(3, 60)))
      << "small";
  // In a long program it is the value's own size that counts: 64 times that.
  const std::vector<ProgramStep> many = steps_of(6400, kMiB);
  EXPECT_THAT(times(stays_of_activation(many, std::vector<std::size_t>{3, 67}, kMiB)),
              ElementsAre(Pair(3, 67)));
  EXPECT_THAT(times(stays_of_activation(many, std::vector<std::size_t>{3, 68}, kMiB)),
              ElementsAre(Pair(3, 3), Pair(68, 68)));
}

TEST(OffloadedStays, AreAskedForBeforeTheyBeginAndGivenBackWhenTheyEnd) {
  const auto piece = [](std::size_t offset) {
    return OffloadedRange{{Region::kOffloadedArena, offset}, kMiB};
  };
  std::vector<ProgramStep> steps = steps_of(40, kMiB);
  schedule(steps,
           {{30, 31, piece(kMiB)}, {2, 3, piece(0)}, {5, 5, piece(kMiB)}, {31, 33, piece(0)}});
  std::vector<std::pair<std::size_t, std::size_t>> asked, given_back;  // step, offset
  for (std::size_t s = 0; s < steps.size(); ++s) {
    for (const auto& range : steps[s].prefetched) asked.emplace_back(s, range.address.offset);
    for (const auto& range : steps[s].released) given_back.emplace_back(s, range.address.offset);
  }
  // Where the stays before begin, but not long before.
  EXPECT_THAT(asked, ElementsAre(Pair(2, 0), Pair(2, kMiB), Pair(22, kMiB), Pair(30, 0)));
  EXPECT_THAT(given_back, ElementsAre(Pair(3, 0), Pair(5, kMiB), Pair(31, kMiB), Pair(33, 0)));
}

TEST(OffloadedStays, AreResidentFromTheirFirstUseOn) {
  const Address first{Region::kOffloadedArena, 0}, second{Region::kOffloadedArena, kMiB};
  std::vector<ProgramStep> steps = steps_of(10, kMiB);
  for (const std::size_t s : {2, 3, 7}) steps[s].operands.push_back(first);
  for (const std::size_t s : {5, 7, 8}) steps[s].operands.push_back(second);
  schedule(steps, {{2, 3, {first, kMiB}}, {5, 8, {second, kMiB}}, {7, 7, {first, kMiB}}});
  EXPECT_EQ(offloaded_window(steps), 2 * kMiB);
  EXPECT_EQ(offloaded_window(std::span(steps).first(7)), kMiB) << "the other was asked for";
  EXPECT_EQ(offloaded_window(std::span(steps).first(2)), 0u);
}

// Like a forward pass, whose values a backward pass reads in the opposite order.
Graph there_and_back(int layers) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("x", {DType::kF32, {1 << 16}}, Input::Kind::kBatch);
  std::vector<ValueId> values = {ops::scale(builder, x, 1.5)};
  for (int i = 1; i < layers; ++i) values.push_back(ops::scale(builder, values.back(), 0.75));
  ValueId sum = values.back();
  for (int i = layers; i-- > 0;) sum = ops::mul(builder, sum, values[static_cast<std::size_t>(i)]);
  builder.output("y", ops::leaf_sum(builder, sum));
  return graph;
}

struct Trial {
  explicit Trial(bool offloads)
      : states(lowered),
        program(compile(lowered, policy, states, {.offload_activations = offloads})) {
    executor.prepare(program);
    if (offloads) executor.allocate_offloaded(std::filesystem::current_path());
  }
  std::vector<float> step(float first) {
    executor.begin_step();
    for (int leaf = 0; leaf < 3; ++leaf) {
      const Binding& x = program.batch_inputs[0];
      for (std::int64_t i = 0; i < x.type.shape.elements(); ++i) {
        executor.at<float>(program, x)[i] = first + static_cast<float>(leaf + i % 7) / 8;
      }
      executor.microbatch(program, {});
    }
    executor.reduce(program);
    const Binding& y = program.outputs[0];
    const float* data = executor.at<float>(program, y);
    return {data, data + y.type.shape.elements()};
  }

  KernelPolicy policy{.measure = false};
  Graph lowered = lower(there_and_back(20), policy);
  StateStore states;
  Program program;
  Executor executor{states};
};

TEST(OffloadedArena, HoldsWhatIsLongNotUsedAndChangesNoBit) {
  Trial in_memory(false), on_disk(true);
  EXPECT_EQ(in_memory.program.offloaded_arena_bytes, 0u);
  const std::size_t value = std::size_t{1} << 18;
  EXPECT_GT(on_disk.program.offloaded_arena_bytes, 15 * value);
  EXPECT_LT(on_disk.program.arena_bytes, in_memory.program.arena_bytes - 14 * value);
  EXPECT_LE(offloaded_window(on_disk.program.microbatch), 4 * value);
  for (const ProgramStep& step : in_memory.program.microbatch) {
    EXPECT_THAT(step.prefetched, IsEmpty());
  }
  for (const float first : {1.0f, -0.5f}) EXPECT_EQ(on_disk.step(first), in_memory.step(first));
}

}  // namespace
}  // namespace concord

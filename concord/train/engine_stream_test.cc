// Pipelines that do not flush, against what their papers say: one rank computes each gradient at
// weights that are as old as they say, and updates the newest.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "concord/base/philox.h"
#include "concord/comm/test_ranks.h"
#include "concord/train/engine.h"
#include "concord/train/test_mlp.h"

namespace concord::train {
namespace {

using parallel::Schedule;

constexpr std::int64_t kBatch = 16;
constexpr std::int64_t kSteps = 9;
constexpr std::int64_t kWidth = 12;

nn::StepOptions model() { return test_mlp(kWidth, {20, 16, 12, 8, 8, 6}); }

struct Case {
  Schedule schedule = Schedule::kPipeDream;
  int pipe = 3;
  bool vertical_sync = false;
  int data = 1;
  const char* transport = "shm";
  std::int64_t leaves = 1, microbatch = 0;
  std::set<std::int64_t> drains = {};  // after these steps
  int zero = 0;
};

EngineOptions options_of(const Case& run) {
  EngineOptions options;
  options.batch = kBatch;
  options.leaves = run.leaves;
  options.microbatch = run.microbatch;
  options.seed = 3;
  options.policy.measure = false;
  return options;
}

std::int64_t samples_of(const Case& run, std::int64_t step) {
  // As the last of an epoch.
  return run.schedule == Schedule::kPipeDream2Bw && step % 4 == 3 ? 3 : kBatch;
}

struct Batch {
  std::vector<float> features;
  std::vector<std::int32_t> labels;

  Batch(std::int64_t step, std::int64_t count) {
    const RandomStream random{.seed = 11, .stream = static_cast<std::uint32_t>(step)};
    for (std::int64_t i = 0; i < count * kWidth; ++i) {
      features.push_back(normal01(random.bits(2 * static_cast<std::uint64_t>(i)),
                                  random.bits(2 * static_cast<std::uint64_t>(i) + 1)));
    }
    for (std::int64_t i = 0; i < count; ++i) labels.push_back(static_cast<std::int32_t>(i % 4));
  }
  Samples range(const data::Slice& slice) const {
    const auto count = static_cast<std::size_t>(slice.end - slice.begin);
    const auto begin = static_cast<std::size_t>(slice.begin);
    return {.count = slice.end - slice.begin,
            .features = std::span(features).subspan(begin * kWidth, count * kWidth),
            .labels = std::span(labels).subspan(begin, count)};
  }
};

double learning_rate(std::int64_t step) { return 0.02 / static_cast<double>(step + 1); }

using Weights = std::map<std::string, std::vector<float>>;

Weights weights_of(const Engine& engine) {
  Weights weights;
  for (const StateStore::Entry& entry : engine.states().entries()) {
    if (entry.role != State::Role::kParameter) continue;
    const OwnedTensor tensor = engine.states().read(entry);
    weights[entry.name].assign(tensor.as<float>().begin(), tensor.as<float>().end());
  }
  return weights;
}

void set_weights(Engine& engine, const Weights& weights) {
  for (const auto& [name, values] : weights) {
    engine.states().write(*engine.states().find(name),
                          reinterpret_cast<const std::byte*>(values.data()));
  }
}

struct Outcome {
  Weights weights;
  std::vector<double> losses;
  std::vector<std::int64_t> staleness;
  std::map<std::string, std::vector<int>> stages;
};

Outcome run(const Case& run) {
  Outcome outcome;
  comm::run_ranks(run.transport, run.data * run.pipe, [&](comm::Communicator& ranks) {
    EngineOptions options = options_of(run);
    options.ranks = &ranks;
    options.plan.mesh = {{{"data", run.data}, {"pipe", run.pipe}}};
    options.plan.zero = run.zero;
    options.plan.smallest_part = 16;
    options.plan.schedule = run.schedule;
    options.plan.vertical_sync = run.vertical_sync;
    Engine engine(model_graphs(model()), options);
    for (std::int64_t step = 0; step < kSteps; ++step) {
      engine.prepare_training(samples_of(run, step));
    }
    engine.join_ranks();
    std::vector<StepResult> results;
    for (std::int64_t step = 0; step < kSteps; ++step) {
      const std::int64_t samples = samples_of(run, step);
      const Batch batch(step, samples);
      const auto ended = engine.stream({step, samples, learning_rate(step)},
                                       batch.range(engine.slice_of(samples)));
      if (ended) results.push_back(*ended);
      if (step + 1 < kSteps && !run.drains.contains(step)) continue;
      for (const StepResult& result : engine.drain()) results.push_back(result);
    }
    const Weights weights = weights_of(engine);
    ranks.barrier();
    if (!ranks.is_first()) return;
    outcome.weights = weights;
    outcome.stages = engine.plan().stages;
    for (const StepResult& result : results) {
      EXPECT_TRUE(result.finite);
      outcome.losses.push_back(result.loss);
      outcome.staleness.push_back(result.staleness);
    }
  });
  return outcome;
}

// Each stage's weights are `ages` updates old, or those of the start.
Outcome replay(const Case& run, const std::map<std::string, std::int64_t>& ages) {
  Engine engine(model_graphs(model()), options_of(run));
  std::vector<Weights> after = {weights_of(engine)};  // so many updates
  Outcome outcome;
  for (std::int64_t step = 0; step < kSteps; ++step) {
    Weights old = after.back();
    for (auto& [name, values] : old) {
      values =
          after[static_cast<std::size_t>(std::max<std::int64_t>(0, step - ages.at(name)))].at(name);
    }
    const std::int64_t samples = samples_of(run, step);
    const Batch batch(step, samples);
    set_weights(engine, old);
    engine.begin_step({step, samples, learning_rate(step)});
    engine.accumulate(batch.range({0, samples}));
    outcome.losses.push_back(engine.reduce().loss);
    set_weights(engine, after.back());
    engine.update();
    after.push_back(weights_of(engine));
  }
  outcome.weights = after.back();
  return outcome;
}

void expect_as_the_paper_says(const Case& of) {
  const Outcome found = run(of);
  std::map<std::string, std::int64_t> ages;
  const parallel::Pipeline pipeline{of.schedule, of.pipe, 1, 1, of.vertical_sync};
  for (const auto& [name, stages] : found.stages) ages[name] = staleness(pipeline, stages[0]);
  const Outcome expected = replay(of, ages);
  EXPECT_EQ(found.losses, expected.losses);
  EXPECT_EQ(found.weights, expected.weights);
  for (std::int64_t step = 0; step < kSteps; ++step) {
    EXPECT_EQ(found.staleness[static_cast<std::size_t>(step)],
              std::min(step, staleness(pipeline, 0)));
  }
}

TEST(OverlappingSteps, PipeDreamStashesTheWeightsOfEachMicrobatch) {
  for (const int pipe : {2, 3, 4}) expect_as_the_paper_says({.pipe = pipe});
  expect_as_the_paper_says({.pipe = 3, .transport = "gloo"});
  expect_as_the_paper_says({.pipe = 2, .data = 2, .leaves = 2});
}

TEST(OverlappingSteps, VerticalSyncTakesTheWeightsOfTheFirstStage) {
  for (const int pipe : {2, 4}) expect_as_the_paper_says({.pipe = pipe, .vertical_sync = true});
}

TEST(OverlappingSteps, TwoVersionsDelayGradientsByOneStep) {
  for (const int pipe : {2, 3, 4, 7}) {
    expect_as_the_paper_says(
        {.schedule = Schedule::kPipeDream2Bw, .pipe = pipe, .leaves = 4, .microbatch = 2});
  }
  expect_as_the_paper_says({.schedule = Schedule::kPipeDream2Bw,
                            .pipe = 2,
                            .data = 2,
                            .transport = "gloo",
                            .leaves = 4,
                            .microbatch = 2});
  expect_as_the_paper_says({.schedule = Schedule::kPipeDream2Bw,
                            .pipe = 2,
                            .data = 2,
                            .leaves = 4,
                            .microbatch = 2,
                            .zero = 1});
}

// Such as for a checkpoint.
TEST(OverlappingSteps, ADrainChangesNothing) {
  const std::set<std::int64_t> drains = {0, 1, 4, 5};
  expect_as_the_paper_says({.pipe = 4, .drains = drains});
  expect_as_the_paper_says({.pipe = 3, .vertical_sync = true, .drains = drains});
  expect_as_the_paper_says({.schedule = Schedule::kPipeDream2Bw,
                            .pipe = 3,
                            .leaves = 4,
                            .microbatch = 2,
                            .drains = drains});
}

}  // namespace
}  // namespace concord::train

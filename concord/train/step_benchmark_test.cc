#include "concord/train/step_benchmark.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "concord/base/error.h"
#include "concord/nn/step.h"

namespace concord::train {
namespace {

constexpr std::int64_t kBatch = 16;

std::unique_ptr<Engine> small_engine(std::int64_t microbatch) {
  const auto sized = [](Graph (*build)(const nn::StepOptions&)) {
    return [build](std::int64_t samples) {
      nn::StepOptions options;
      options.model.hidden = {8};
      options.sample = {4};
      options.outputs = 3;
      options.microbatch = samples;
      return build(options);
    };
  };
  return std::make_unique<Engine>(
      ModelGraphs{sized(nn::build_training_step), sized(nn::build_evaluation_step),
                  sized(nn::build_prediction)},
      EngineOptions{
          .batch = kBatch, .leaves = 2, .microbatch = microbatch, .policy = {.measure = false}});
}

struct Batches {
  std::vector<float> features = std::vector<float>(kBatch * 4, 0.5f);
  std::vector<std::int32_t> labels = std::vector<std::int32_t>(kBatch, 1);
  int calls = 0;

  std::function<Samples()> next() {
    return [this] {
      ++calls;
      return Samples{.count = kBatch, .features = features, .labels = labels};
    };
  }
};

std::vector<float> parameters(Engine& engine) {
  std::vector<float> values;
  for (const StateStore::Entry& entry : engine.states().entries()) {
    if (entry.role != State::Role::kParameter) continue;
    const OwnedTensor tensor = engine.states().read(entry);
    values.insert(values.end(), tensor.as<float>().begin(), tensor.as<float>().end());
  }
  return values;
}

TEST(StepBenchmark, ReportsConsistentNumbersAndLeavesTheWeights) {
  const auto engine = small_engine(4);
  const std::vector<float> before = parameters(*engine);
  Batches batches;
  const StepBenchmark result = benchmark_steps(*engine, batches.next(), {.warmup = 2, .steps = 5});
  EXPECT_EQ(parameters(*engine), before);
  EXPECT_EQ(batches.calls, 2 + 5 + 5);
  EXPECT_EQ(result.steps, 5);
  EXPECT_GT(result.fastest_seconds, 0);
  EXPECT_LE(result.fastest_seconds, result.step_seconds);
  EXPECT_LE(result.step_seconds, result.slowest_seconds);
  EXPECT_NEAR(result.samples_per_second * result.step_seconds, kBatch, 1e-6);
  EXPECT_NEAR(result.flops_per_second * result.step_seconds, engine->flops_per_step(), 1);
}

TEST(StepBenchmark, OpsAddUpToTheStepsWork) {
  const auto engine = small_engine(4);
  Batches batches;
  const StepBenchmark result = benchmark_steps(*engine, batches.next(), {.steps = 2});
  ASSERT_FALSE(result.by_op.empty());
  double flops = 0;
  for (const OpTime& time : result.by_op) {
    EXPECT_GT(time.seconds, 0) << time.op;
    flops += time.flops;
  }
  EXPECT_NEAR(flops, engine->flops_per_step(), 1);
  EXPECT_TRUE(std::ranges::is_sorted(result.by_op, std::ranges::greater{}, &OpTime::seconds));
  const auto loss = std::ranges::find(result.by_op, "softmax_cross_entropy", &OpTime::op);
  ASSERT_NE(loss, result.by_op.end());
  EXPECT_EQ(loss->runs, 4) << "a batch of 16 in microbatches of 4";
}

TEST(StepBenchmark, RunsProductsAlone) {
  const auto engine = small_engine(4);
  const std::vector<float> before = parameters(*engine);
  Batches batches;
  const StepBenchmark without = benchmark_steps(*engine, batches.next(), {.steps = 1});
  EXPECT_EQ(without.products_alone_seconds, 0);
  const StepBenchmark with =
      benchmark_steps(*engine, batches.next(), {.steps = 1, .runs_alone = 3});
  EXPECT_GT(with.products_alone_seconds, 0);
  EXPECT_EQ(parameters(*engine), before);
}

TEST(StepBenchmark, RefusesToMeasureNothing) {
  const auto engine = small_engine(8);
  Batches batches;
  EXPECT_THROW(benchmark_steps(*engine, batches.next(), {.steps = 0}), Error);
  EXPECT_THROW(benchmark_steps(*engine, batches.next(), {.warmup = -1}), Error);
}

}  // namespace
}  // namespace concord::train

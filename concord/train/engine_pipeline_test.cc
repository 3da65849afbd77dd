// Ranks that divide layers, samples and states compute what one rank computes, bit for bit.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "concord/base/philox.h"
#include "concord/comm/test_ranks.h"
#include "concord/train/engine.h"
#include "concord/train/test_mlp.h"

namespace concord::train {
namespace {

using parallel::Schedule;

constexpr std::int64_t kWidth = 12;

// Of 17 layers, as many as 8 ranks need that have two stages each.
nn::StepOptions model() {
  std::vector<std::int64_t> hidden(16, 8);
  hidden[0] = 20;
  return test_mlp(kWidth, std::move(hidden));
}

struct Case {
  Schedule schedule = Schedule::k1F1B;
  int data = 1, pipe = 1, zero = 0;
  const char* transport = "shm";
  Recompute recompute = Recompute::kNone;
  std::int64_t batch = 16, leaves = 8, microbatch = 0;
  std::vector<std::int64_t> steps = {};  // samples of each

  std::string text() const {
    return fmt::format("{}, data {}, pipe {}, zero {}, {}, recomputation {}", name_of(schedule),
                       data, pipe, zero, transport, static_cast<int>(recompute));
  }
};

// Rows of features and labels, numbered from the first of a step.
struct Batch {
  std::vector<float> features;
  std::vector<std::int32_t> labels;

  void add(std::size_t step, const data::Slice& slice) {
    const RandomStream random{.seed = 11, .stream = static_cast<std::uint32_t>(step)};
    for (std::int64_t i = slice.begin * kWidth; i < slice.end * kWidth; ++i) {
      features.push_back(normal01(random.bits(2 * static_cast<std::uint64_t>(i)),
                                  random.bits(2 * static_cast<std::uint64_t>(i) + 1)));
    }
    for (std::int64_t i = slice.begin; i < slice.end; ++i) {
      labels.push_back(static_cast<std::int32_t>(i % 4));
    }
  }
  Samples samples() const {
    return {.count = std::ssize(labels), .features = features, .labels = labels};
  }
};

struct Outcome {
  std::map<std::string, std::vector<float>> weights;
  std::vector<double> losses;  // of the steps, then of an evaluation after each
};

Outcome run(const Case& run) {
  Outcome outcome;
  comm::run_ranks(run.transport, run.data * run.pipe, [&](comm::Communicator& ranks) {
    EngineOptions options;
    options.batch = run.batch;
    options.leaves = run.leaves;
    options.microbatch = run.microbatch;
    options.seed = 3;
    options.policy.measure = false;
    options.recompute = run.recompute;
    options.ranks = &ranks;
    options.plan.mesh = {{{"data", run.data}, {"pipe", run.pipe}}};
    options.plan.zero = run.zero;
    options.plan.smallest_part = 16;
    options.plan.schedule = run.schedule;
    options.plan.chunks = run.pipe > 1 ? parallel::fewest_chunks(run.schedule) : 1;
    Engine engine(model_graphs(model()), options);
    for (const std::int64_t samples : run.steps) {
      engine.prepare_training(samples);
      engine.prepare_evaluation(samples);
    }
    engine.join_ranks();
    std::vector<double> losses, evaluated;
    for (std::size_t step = 0; step < run.steps.size(); ++step) {
      const std::int64_t samples = run.steps[step];
      Batch batch, test;
      for (const data::Slice& slice : engine.training_slices(samples)) batch.add(step, slice);
      engine.begin_step({static_cast<std::int64_t>(step), samples, 0.02});
      engine.accumulate(batch.samples());
      losses.push_back(engine.reduce().loss);
      engine.update();
      test.add(step + 100, engine.slice_of(samples));
      evaluated.push_back(engine.evaluate(test.samples(), samples).loss);
    }
    std::map<std::string, std::vector<float>> weights;
    for (const StateStore::Entry& entry : engine.states().entries()) {
      if (entry.role != State::Role::kParameter) continue;
      const OwnedTensor tensor = engine.states().read(entry);
      weights[entry.name].assign(tensor.as<float>().begin(), tensor.as<float>().end());
    }
    ranks.barrier();
    if (!ranks.is_first()) return;
    losses.insert(losses.end(), evaluated.begin(), evaluated.end());
    outcome = {weights, losses};
  });
  return outcome;
}

Outcome run_alone(Case of) {
  of.data = of.pipe = 1;
  of.zero = 0;
  of.schedule = Schedule::k1F1B;
  of.recompute = Recompute::kNone;
  return run(of);
}

void expect_same(const Outcome& found, const Outcome& expected, const Case& of) {
  EXPECT_EQ(found.losses, expected.losses) << of.text();
  EXPECT_EQ(found.weights, expected.weights) << of.text();
}

constexpr Schedule kSynchronous[] = {Schedule::kSequential,  Schedule::kGPipe, Schedule::k1F1B,
                                     Schedule::kInterleaved, Schedule::kZbH1,  Schedule::kZbV};

// The last step is shorter.
TEST(EveryMesh, AnyDepthScheduleAndRecomputationHasTheBitsOfOneRank) {
  for (int pipe = 1; pipe <= 8; ++pipe) {
    // As many microbatches as `interleaved` takes.
    Case of{.pipe = pipe, .batch = 2 * pipe, .leaves = 2, .microbatch = 1};
    of.steps = {of.batch, of.batch, of.batch - 1};
    const Outcome alone = run_alone(of);
    for (const Recompute recompute : {Recompute::kNone, Recompute::kFull}) {
      for (const Schedule schedule : kSynchronous) {
        of.recompute = recompute;
        of.schedule = schedule;
        expect_same(run(of), alone, of);
      }
    }
  }
}

// Of a shorter step some ranks have fewer microbatches than others, a shorter one, or none.
TEST(EveryMesh, StatesGradientsAndParametersMayBeDivided) {
  Case of{.steps = {16, 11, 16, 3, 2, 5}};
  const Outcome alone = run_alone(of);
  for (const char* transport : {"shm", "gloo"}) {
    of.transport = transport;
    for (of.zero = 0; of.zero <= 3; ++of.zero) {
      of.pipe = of.data = 2;
      for (const Schedule schedule : kSynchronous) {
        of.schedule = schedule;
        expect_same(run(of), alone, of);
      }
      of.schedule = Schedule::k1F1B;
      of.pipe = 3;
      expect_same(run(of), alone, of);
      of.pipe = 2;
      of.data = 4;
      expect_same(run(of), alone, of);
    }
  }
}

}  // namespace
}  // namespace concord::train

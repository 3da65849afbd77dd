#include "concord/train/local_sync.h"

#include <gtest/gtest.h>

#include "concord/comm/test_ranks.h"
#include "concord/graph/builder.h"

namespace concord::train {
namespace {

// A parameter, and a state of the optimizer.
Graph two_states() {
  Graph graph;
  GraphBuilder builder(graph);
  builder.state("w", {DType::kF32, {1}}, State::Role::kParameter, {});
  builder.state("m", {DType::kF32, {1}}, State::Role::kOptimizer, {});
  return graph;
}

struct Outcome {
  float parameter, optimizer_state;
};

// Three ranks begin with w = 10; in each of two periods rank r takes r + 1 from w, and m becomes r.
std::vector<Outcome> after_two_periods(const LocalSyncOptions& options, double learning_rate) {
  std::vector<Outcome> outcomes(3);
  comm::run_ranks("shm", 3, [&](comm::Communicator& ranks) {
    StateStore states(two_states());
    LocalSync sync(states, ranks, options);
    float* const w = reinterpret_cast<float*>(states.data() + states.find("w")->offset);
    float* const m = reinterpret_cast<float*>(states.data() + states.find("m")->offset);
    *w = 10;
    sync.begin();
    for (int period = 0; period < 2; ++period) {
      *w -= static_cast<float>(ranks.rank() + 1);
      *m = static_cast<float>(ranks.rank());
      sync.run(learning_rate);
    }
    outcomes[static_cast<std::size_t>(ranks.rank())] = {*w, *m};
  });
  return outcomes;
}

TEST(LocalSync, RanksGoOnFromTheMean) {
  for (const Outcome& rank : after_two_periods({}, 0.1)) {
    EXPECT_FLOAT_EQ(rank.parameter, 10 - 2 - 2);
    EXPECT_FLOAT_EQ(rank.optimizer_state, 1);
  }
}

TEST(LocalSync, MomentumOverPeriodsIsThatOfSlowMo) {
  // u = 2 / n, then 0.5 u + 2 / n; each period takes n u.
  for (const Outcome& rank : after_two_periods({.learning_rate = 1, .momentum = 0.5}, 0.1)) {
    EXPECT_FLOAT_EQ(rank.parameter, 10 - 2 - 3);
  }
}

TEST(LocalSync, AStepOfNoLearningRateTakesTheMean) {
  for (const Outcome& rank : after_two_periods({.learning_rate = 1, .momentum = 0.5}, 0)) {
    EXPECT_FLOAT_EQ(rank.parameter, 10 - 2 - 3);
  }
}

TEST(LocalSync, NesterovsMomentumIsThatOfDiloco) {
  // u = 2, then 0.5 u + 2 = 3; each period takes 0.7 (2 + 0.5 u).
  const LocalSyncOptions options{
      .outer = LocalSyncOptions::Outer::kNesterov, .learning_rate = 0.7, .momentum = 0.5};
  for (const Outcome& rank : after_two_periods(options, 0.1)) {
    EXPECT_FLOAT_EQ(rank.parameter, 10 - 0.7f * 3.0f - 0.7f * 3.5f);
  }
}

}  // namespace
}  // namespace concord::train

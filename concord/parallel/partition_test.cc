#include "concord/parallel/partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/base/error.h"
#include "concord/graph/builder.h"
#include "concord/graph/verifier.h"
#include "concord/nn/step.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/collective.h"
#include "concord/ops/optimizer.h"
#include "concord/ops/step.h"

namespace concord::parallel {
namespace {

Graph training_step(const std::string& model) {
  return nn::build_training_step({.model = {.name = model, .hidden = {5}, .batch_norm = true},
                                  .sample = {1, 28, 28},
                                  .outputs = 3,
                                  .microbatch = 4,
                                  .optimizer = {.clip_norm = 1}});
}

Graph partitioned(const Graph& graph, const Mesh& mesh) {
  Plan plan{.mesh = mesh};
  return partition(graph, plan, 0);
}

int count(const Graph& graph, std::string_view op) {
  return static_cast<int>(std::ranges::count(graph.nodes, op, &Node::op));
}

TEST(Partition, PutsAnAllReduceBehindEveryLeafSumAndNothingElse) {
  for (const char* model : {"mlp", "lenet"}) {
    const Graph whole = training_step(model);
    const Graph part = partitioned(whole, {{{"data", 4}}});
    verify(part);
    EXPECT_EQ(count(part, ops::kAllReduce), count(whole, "leaf_sum"));
    EXPECT_EQ(part.nodes.size(), whole.nodes.size() + count(whole, "leaf_sum"));
    const std::vector<Placement> placements = placements_along_data(part);
    for (const Node& node : part.nodes) {
      if (node.op == ops::kAllReduce) {
        EXPECT_EQ(placements[node.inputs[0]], Placement::partial());
        EXPECT_EQ(placements[node.outputs[0]], Placement::replicate());
      }
    }
    for (const State& state : part.states) {
      if (state.next == kNoValue) continue;
      EXPECT_EQ(placements[state.next], Placement::replicate());
    }
    for (const Output& output : part.outputs) {
      EXPECT_EQ(placements[output.value], Placement::replicate());
    }
  }
}

// Two for the statistics of a norm, two for their gradients.
TEST(Partition, PutsAnAllReduceBehindEveryTotalOverLeaves) {
  const Graph whole = nn::build_training_step({.model = {.name = "resnet_small"},
                                               .sample = {1, 8, 8},
                                               .outputs = 3,
                                               .microbatch = 4,
                                               .batch_norm_over_leaves = true});
  const Graph part = partitioned(whole, {{{"data", 4}}});
  verify(part);
  const int totals = count(whole, ops::kLeafTotal);
  EXPECT_EQ(totals, 4 * count(whole, "batch_norm_over_leaves"));
  EXPECT_GT(totals, 0);
  EXPECT_EQ(count(part, ops::kAllReduce), count(whole, "leaf_sum") + totals);
  placements_along_data(part);
}

TEST(Partition, AMeshOfOneRankChangesNothing) {
  const Graph whole = training_step("mlp");
  EXPECT_EQ(partitioned(whole, {}).nodes.size(), whole.nodes.size());
  EXPECT_EQ(partitioned(whole, {{{"data", 1}}}).nodes.size(), whole.nodes.size());
}

// The kinds of states, and what is not large enough to be shared.
TEST(Partition, RanksShareUpdatesByPartsOfWhatLiesInMemory) {
  const Graph whole =
      nn::build_training_step({.model = {.name = "mlp", .hidden = {300}},
                               .sample = {100},
                               .outputs = 3,
                               .microbatch = 4,
                               .optimizer = {.name = "adamw", .clip_norm = 1, .ema_decay = 0.9}});
  for (const int zero : {0, 1, 3}) {
    for (const bool in_common : {false, true}) {
      Plan plan{.mesh = {{{"data", 3}}}, .zero = zero, .in_common = in_common};
      const Graph part = partition(whole, plan, 1);
      verify(part);
      const std::vector<Placement> placements = placements_along_data(part);
      const bool shares = zero > 0 || in_common;
      for (const State& state : part.states) {
        const Value& value = part.value(state.value);
        const bool is_large = value.name.starts_with("fc1.weight");
        EXPECT_EQ(state.flat.has_value(), shares && is_large) << value.name;
        if (!state.flat) continue;
        const bool is_parameter = state.role == State::Role::kParameter;
        EXPECT_EQ(state.flat->is_held_whole, is_parameter && (zero < 3 || in_common)) << value.name;
        EXPECT_EQ(state.flat->part, 10240);  // 300 * 100 numbers in 118 runs, 40 for each
        const Placement expected =
            state.flat->is_held_whole ? Placement::replicate() : Placement::split(Placement::kFlat);
        EXPECT_EQ(placements[state.value], expected);
        EXPECT_EQ(placements[state.next], expected);
      }
      EXPECT_EQ(count(part, ops::kReduceScatter), shares ? 1 : 0);
      if (zero < 3) {
        EXPECT_EQ(count(part, ops::kAllGather), shares ? 1 : 0);
      }
    }
  }
}

// One parameter is sent while the next is updated.
TEST(Partition, EachParameterIsGatheredBeforeTheNextIsUpdated) {
  const Graph whole = nn::build_training_step({.model = {.name = "mlp", .hidden = {300, 300}},
                                               .sample = {100},
                                               .outputs = 3,
                                               .microbatch = 4,
                                               .optimizer = {.name = "adamw", .ema_decay = 0.9}});
  Plan plan{.mesh = {{{"data", 2}}}, .zero = 1};
  const Graph part = partition(divide(whole, plan, 1), plan, 1);
  verify(part);
  std::vector<std::string> order;
  for (const Node& node : part.nodes) {
    const bool is_large = part.type(node.outputs[0]).shape.elements() > 3 * 300;
    const bool gathers = node.op == ops::kAllGather, updates = node.op == "adam_update";
    if (is_large && (gathers || updates)) order.push_back(gathers ? "gather" : "update");
  }
  EXPECT_THAT(order, testing::ElementsAre("update", "gather", "update", "gather"));

  plan = {.mesh = {{{"data", 2}}}, .in_common = true};  // nothing is sent
  EXPECT_EQ(divide(whole, plan, 1).nodes.size(), whole.nodes.size());
}

Graph step_of(const OptimizerOptions& optimizer) {
  return nn::build_training_step({.model = {.name = "mlp", .hidden = {300, 200}},
                                  .sample = {100},
                                  .outputs = 3,
                                  .microbatch = 4,
                                  .optimizer = optimizer});
}

// Of the two large matrices: what an optimizer remembers is in parts, and the norms of a matrix and
// of its step are summed over the ranks together.
TEST(Partition, UpdatesThatNeedNormsAreSharedToo) {
  for (const char* name : {"lars", "lamb", "muon"}) {
    const Graph whole = step_of(usual_options(name));
    const bool is_muon = std::string(name) == "muon";
    for (const int zero : {0, 1, 3}) {
      for (const bool in_common : {false, true}) {
        if (zero == 0 && !in_common) continue;
        Plan plan{.mesh = {{{"data", 3}}}, .zero = zero, .in_common = in_common};
        const Graph part = partition(divide(whole, plan, 1), plan, 1);
        verify(part);
        placements_along_data(part);
        int flat = 0;
        for (const State& state : part.states) flat += state.flat ? 1 : 0;
        EXPECT_EQ(flat, std::string(name) == "lamb" ? 6 : 4) << name;
        EXPECT_EQ(count(part, ops::kReduceScatter), 2) << name;
        // muon gathers the directions of its matrices; parameters are gathered where they lie.
        const int directions = is_muon ? 2 : 0;
        if (zero < 3) {
          EXPECT_EQ(count(part, ops::kAllGather), 2 + directions) << name;
        }
        EXPECT_EQ(count(part, "exact_sum_of_squares"), 2) << name;
      }
    }
  }
}

// A parameter, its gradient, and a state beside it.
struct CustomStep {
  CustomStep() : b(graph) {
    const TensorType type{DType::kF32, {6000}};
    p = b.state("p", type, State::Role::kParameter, {});
    memory = b.state("memory", type, State::Role::kOptimizer, {});
    gradient = ops::leaf_sum(b, ops::mul(b, p, b.input("x", type, Input::Kind::kBatch)));
    one = ops::constant(b, {DType::kF32, {}}, 1);
  }
  void update_parameter() {
    b.set_next(p, ops::sgd_update(b, one, one, {p}, {gradient}, {}, {}).parameters[0]);
  }
  std::size_t flat_in_common() const {
    Plan plan{.mesh = {{{"data", 2}}}, .in_common = true};
    const Graph part = partition(graph, plan, 0);
    verify(part);
    placements_along_data(part);
    return static_cast<std::size_t>(
        std::ranges::count_if(part.states, [](const State& s) { return s.flat.has_value(); }));
  }

  Graph graph;
  GraphBuilder b;
  ValueId p, memory, gradient, one;
};

TEST(Partition, AnUpdateThatNeedsTheWholeTensorIsNotShared) {
  CustomStep step;
  step.b.set_next(step.memory, ops::add(step.b, step.memory, step.gradient));
  step.update_parameter();
  EXPECT_EQ(step.flat_in_common(), 1);  // p
  Plan plan{.mesh = {{{"data", 2}}}, .zero = 1};
  try {
    partition(step.graph, plan, 0);
    ADD_FAILURE() << "expected an error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("parallel.zero = 1"));
    EXPECT_THAT(error.what(), testing::HasSubstr("\"memory\""));
  }
}

// Another rank may have written its part of it by then.
TEST(Partition, AStateThatIsReadAfterItWasReplacedStaysWhole) {
  for (const bool reads_after : {false, true}) {
    CustomStep step;
    if (reads_after) step.update_parameter();
    // Of the update, as it reads what is of all leaves.
    const ops::SgdUpdate next =
        ops::sgd_update(step.b, step.one, step.one, {step.p}, {step.gradient}, {}, {});
    step.b.set_next(step.memory, next.parameters[0]);
    if (!reads_after) step.update_parameter();
    EXPECT_EQ(step.flat_in_common(), reads_after ? 0 : 2);
  }
}

TEST(Partition, AGraphThatReadsASummandIsRefused) {
  const Graph whole = training_step("mlp");
  EXPECT_THROW(placements_along_data(whole), Error);  // its update reads leaf_sums
}

}  // namespace
}  // namespace concord::parallel

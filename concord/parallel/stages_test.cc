#include "concord/parallel/stages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "concord/base/error.h"
#include "concord/graph/builder.h"
#include "concord/graph/op.h"
#include "concord/graph/verifier.h"
#include "concord/nn/step.h"
#include "concord/ops/collective.h"
#include "concord/parallel/separate.h"

namespace concord::parallel {
namespace {

Graph mlp(std::vector<std::int64_t> hidden) {
  return separate(nn::build_training_step({.model = {.name = "mlp", .hidden = std::move(hidden)},
                                           .sample = {64},
                                           .outputs = 8,
                                           .microbatch = 16,
                                           .optimizer = {.clip_norm = 1}}),
                  /*sums_too=*/false);
}

Graph gpt(int layers) {
  nn::ModelOptions model{.name = "gpt"};
  model.layers = layers;
  model.heads = 2;
  model.width = 16;
  return separate(
      nn::build_training_step(
          {.model = model, .tokens = true, .sample = {8}, .outputs = 32, .microbatch = 2}),
      /*sums_too=*/false);
}

Plan plan_for(int ranks, Schedule schedule = Schedule::k1F1B) {
  return {.mesh = {{{"pipe", ranks}}}, .schedule = schedule, .chunks = fewest_chunks(schedule)};
}

std::vector<Graph> cut(const Graph& graph, Plan& plan) {
  std::vector<Graph> graphs;
  for (int rank = 0; rank < plan.mesh.ranks(); ++rank) {
    graphs.push_back(cut_into_stages(graph, plan, rank));
    verify(graphs.back());
  }
  return graphs;
}

int count(const Graph& graph, std::string_view op) {
  return static_cast<int>(std::ranges::count(graph.nodes, op, &Node::op));
}

// By number and sender, those of a kind.
std::multiset<std::string> messages(const std::vector<Graph>& graphs, std::string_view op) {
  std::multiset<std::string> found;
  for (std::size_t rank = 0; rank < graphs.size(); ++rank) {
    for (const Node& node : graphs[rank].nodes) {
      if (node.op != op) continue;
      const auto own = static_cast<std::int64_t>(rank);
      const std::int64_t peer = node.attributes.integer("peer");
      found.insert(fmt::format("{} {} from {} to {}", node.attributes.text("stream"),
                               node.attributes.integer("number"), op == ops::kSend ? own : peer,
                               op == ops::kSend ? peer : own));
    }
  }
  return found;
}

TEST(Stages, WhatOneRankSendsAnotherReceives) {
  for (const Schedule schedule : {Schedule::k1F1B, Schedule::kInterleaved, Schedule::kZbV}) {
    for (const Graph& graph : {mlp({32, 32, 32, 32, 32}), gpt(4)}) {
      Plan plan = plan_for(2, schedule);
      const std::vector<Graph> graphs = cut(graph, plan);
      EXPECT_EQ(messages(graphs, ops::kSend), messages(graphs, ops::kReceive));
      EXPECT_GE(messages(graphs, ops::kSend).size(), 2u);
    }
  }
}

// Nothing is computed twice, and nothing is left out.
TEST(Stages, EveryNodeIsOfOneRank) {
  const Graph graph = mlp({32, 16, 24});
  Plan plan = plan_for(3);
  std::map<std::string, int> before, after;
  for (const Node& node : graph.nodes) ++before[node.op + node.name];
  for (const Graph& part : cut(graph, plan)) {
    for (const Node& node : part.nodes) ++after[node.op + node.name];
  }
  for (const char* op : {"linear", "matmul", "leaf_sum", "sgd_update"}) {
    for (const auto& [key, nodes] : before) {
      if (!key.starts_with(op)) continue;
      EXPECT_EQ(after[key], nodes) << key;
    }
  }
}

TEST(Stages, AWeightOfTwoLayersIsUpdatedOnceAndSent) {
  const Graph graph = gpt(4);
  Plan plan = plan_for(4);
  const std::vector<Graph> graphs = cut(graph, plan);
  int holders = 0, sends = 0, receives = 0;
  for (const Graph& part : graphs) {
    const auto state = std::ranges::find_if(
        part.states, [&](const State& s) { return part.value(s.value).name == "wte.weight"; });
    ASSERT_NE(state, part.states.end());
    holders += state->is_here() ? 1 : 0;
    for (const Node& node : part.nodes) {
      if (node.name != "wte.weight" || !ops::is_message(node.op)) continue;
      (node.op == ops::kSend ? sends : receives) += 1;
    }
  }
  EXPECT_EQ(plan.stages.at("wte.weight"), (std::vector<int>{0, 3}));
  EXPECT_EQ(holders, 2);
  EXPECT_EQ(sends, 1);
  EXPECT_EQ(receives, 1);
}

// Each gradient's squares are added up where it is, exactly, and then all of them.
TEST(Stages, TheGradientNormIsOfAllStages) {
  Plan plan = plan_for(2);
  for (const Graph& part : cut(mlp({32, 32}), plan)) {
    EXPECT_EQ(count(part, "exact_sum_of_squares"), 1);
    EXPECT_EQ(count(part, ops::kAllReduce), 1);
    EXPECT_EQ(count(part, "sum_of_squares"), 0);
  }
}

// Seconds of the products of a layer, by their FLOPs.
double flops_of(const Graph& graph, std::string_view layer) {
  double flops = 0;
  for (const Node& node : graph.nodes) {
    if (node.name == layer) flops += cost_of(graph, node).flops;
  }
  return flops;
}

// What the dearest of so many stages costs at least: beside every way to cut.
double least_dearest(std::span<const double> layers, int stages) {
  double least = 1e30;
  for (int ends = 0; ends < 1 << (layers.size() - 1); ++ends) {
    if (__builtin_popcount(static_cast<unsigned>(ends)) != stages - 1) continue;
    double dearest = 0, stage = 0;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      stage += layers[i];
      dearest = std::max(dearest, stage);
      if ((ends >> i & 1) != 0) stage = 0;
    }
    least = std::min(least, dearest);
  }
  return least;
}

std::string layer_name(std::size_t i) { return fmt::format("fc{}", i + 1); }

// What the dearest stage of a plan costs, given its layers' costs.
double dearest(const Plan& plan, std::span<const double> layers, int stages) {
  std::vector<double> of_stages(static_cast<std::size_t>(stages), 0);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const int stage = plan.stages.at(layer_name(i) + ".weight")[0];
    of_stages[static_cast<std::size_t>(stage)] += layers[i];
  }
  return std::ranges::max(of_stages);
}

// Layers as products cost, whatever their number in a stage.
TEST(Stages, TheDearestIsAsCheapAsCanBe) {
  const std::vector<std::int64_t> widths = {512, 32, 256, 1024, 64, 64, 512};
  const Graph graph = mlp(widths);
  std::vector<double> cost;
  for (std::size_t i = 0; i <= widths.size(); ++i) cost.push_back(flops_of(graph, layer_name(i)));
  for (const int ranks : {2, 3, 4}) {
    Plan plan = plan_for(ranks);
    plan.machine.memory_bytes_per_second = 1e30;  // operations alone count
    cut_into_stages(graph, plan, 0);
    EXPECT_LE(dearest(plan, cost, ranks), 1.01 * least_dearest(cost, ranks)) << ranks;
  }
}

// Layers that cost what a clock says: all of it as their products of the forward pass.
class Clock {
 public:
  explicit Clock(std::vector<double> seconds) : seconds_(std::move(seconds)) {}

  StageTimer timer(std::map<std::string, std::string, std::less<>>& decisions) {
    return {.measure =
                [this](const Graph& graph, std::span<const std::size_t> nodes) {
                  ++times_asked_;
                  std::vector<std::optional<double>> found;
                  std::set<std::string> names;  // a layer's first product is the forward pass's
                  for (const std::size_t n : nodes) {
                    const Node& node = graph.nodes[n];
                    const bool counts =
                        cost_of(graph, node).flops > 0 && names.insert(node.name).second;
                    found.emplace_back(counts ? seconds_of(node.name) : 0);
                  }
                  return found;
                },
            .machine = "a clock",
            .decisions = &decisions};
  }
  int times_asked() const { return times_asked_; }

 private:
  double seconds_of(std::string_view name) const {
    for (std::size_t i = 0; i < seconds_.size(); ++i) {
      if (name == layer_name(i)) return seconds_[i];
    }
    return 0;
  }
  std::vector<double> seconds_;
  int times_asked_ = 0;
};

TEST(Stages, WhatIsMeasuredDecidesOnce) {
  const Graph graph = mlp({32, 32, 32, 32, 32});
  for (const std::vector<double>& seconds :
       {std::vector<double>{9, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 9}, {2, 3, 1, 7, 1, 4}}) {
    Clock clock(seconds);
    std::map<std::string, std::string, std::less<>> decisions;
    const StageTimer timer = clock.timer(decisions);
    Plan plan = plan_for(3);
    for (int rank = 0; rank < 3; ++rank) cut_into_stages(graph, plan, rank, timer);
    EXPECT_EQ(dearest(plan, seconds, 3), least_dearest(seconds, 3));
    EXPECT_EQ(clock.times_asked(), 1);
    ASSERT_EQ(decisions.size(), 1U);
    double all = 0;
    for (const StageCosts& costs : plan.stage_costs) all += costs.forward;
    EXPECT_EQ(all, std::accumulate(seconds.begin(), seconds.end(), 0.0));

    Plan other = plan_for(3);  // of another rank, who is told
    cut_into_stages(graph, other, 2, timer);
    EXPECT_EQ(clock.times_asked(), 1);
    EXPECT_EQ(other.stages, plan.stages);
    ASSERT_EQ(other.stage_costs.size(), 3U);
    for (std::size_t s = 0; s < 3; ++s) {
      EXPECT_EQ(other.stage_costs[s].forward, plan.stage_costs[s].forward);
    }

    Plan wider = plan_for(2);  // another question
    cut_into_stages(graph, wider, 0, timer);
    EXPECT_EQ(decisions.size(), 2U);
  }
}

TEST(Stages, ADecisionThatMakesNoSenseIsRefused) {
  const Graph graph = mlp({32, 32, 32});
  Clock clock({1, 1, 1, 1});
  std::map<std::string, std::string, std::less<>> decisions;
  Plan plan = plan_for(2);
  cut_into_stages(graph, plan, 0, clock.timer(decisions));
  ASSERT_EQ(decisions.begin()->second, "1 2 0 0, 3 2 0 0");
  for (const char* text :
       {"", "1 2 0 0", "3 2 0 0, 3 2 0 0", "1 2 0 0, 2 2 0 0", "1 2 0 0; 3 2 0 0",
        "1 2 0 0, 3 2 0 0, 4 2 0 0", "-1 2 0 0, 3 2 0 0", "x", "1 2 0, 3 2 0"}) {
    decisions.begin()->second = text;
    Plan other = plan_for(2);
    try {
      cut_into_stages(graph, other, 0, clock.timer(decisions));
      FAIL() << text;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("expected 2 of them, behind cut points 0 to 2"));
    }
  }
}

TEST(Stages, MoreThanTheModelHasAreRefused) {
  Plan plan = plan_for(4);
  try {
    cut_into_stages(mlp({32, 32}), plan, 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("parallel.mesh.pipe = 4: expected at most 3 "
                                                 "stages, since the model has 2 cut points"));
  }
}

// An evaluation follows the training's graph, with its forward pass alone.
TEST(Stages, AnEvaluationIsCutAlike) {
  const nn::StepOptions options{
      .model = {.name = "resnet_small"}, .sample = {3, 16, 16}, .outputs = 4, .microbatch = 4};
  Plan plan = plan_for(3);
  cut(separate(nn::build_training_step(options), false), plan);
  const auto stages = plan.stages;
  for (const Graph& part : cut(separate(nn::build_evaluation_step(options), false), plan)) {
    for (const Node& node : part.nodes) EXPECT_LT(node.half, 1);
  }
  EXPECT_EQ(plan.stages, stages);
}

}  // namespace
}  // namespace concord::parallel

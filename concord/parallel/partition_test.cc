#include "concord/parallel/partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/base/error.h"
#include "concord/graph/builder.h"
#include "concord/graph/verifier.h"
#include "concord/nn/step.h"
#include "concord/ops/collective.h"
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

int count(const Graph& graph, std::string_view op) {
  return static_cast<int>(std::ranges::count(graph.nodes, op, &Node::op));
}

TEST(Partition, PutsAnAllReduceBehindEveryLeafSumAndNothingElse) {
  for (const char* model : {"mlp", "lenet"}) {
    const Graph whole = training_step(model);
    const Graph part = partition(whole, {{{"data", 4}}});
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
  const Graph part = partition(whole, {{{"data", 4}}});
  verify(part);
  const int totals = count(whole, ops::kLeafTotal);
  EXPECT_EQ(totals, 4 * count(whole, "batch_norm_over_leaves"));
  EXPECT_GT(totals, 0);
  EXPECT_EQ(count(part, ops::kAllReduce), count(whole, "leaf_sum") + totals);
  placements_along_data(part);
}

TEST(Partition, AMeshOfOneRankChangesNothing) {
  const Graph whole = training_step("mlp");
  EXPECT_EQ(partition(whole, {}).nodes.size(), whole.nodes.size());
  EXPECT_EQ(partition(whole, {{{"data", 1}}}).nodes.size(), whole.nodes.size());
}

TEST(Partition, AGraphThatReadsASummandIsRefused) {
  const Graph whole = training_step("mlp");
  EXPECT_THROW(placements_along_data(whole), Error);  // its update reads leaf_sums
}

}  // namespace
}  // namespace concord::parallel

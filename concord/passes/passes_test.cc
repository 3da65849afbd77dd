#include <gtest/gtest.h>

#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/passes/dead_code.h"
#include "concord/passes/memory_plan.h"
#include "concord/passes/pass.h"

namespace concord {
namespace {

Graph small_graph() {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("x", {DType::kF32, {4}});
  ops::scale(builder, x, 2.0);  // dead
  builder.output("y", ops::relu(builder, x));
  return graph;
}

TEST(DeadCode, RemovesOnlyWhatNothingUses) {
  const Graph graph = remove_dead_code(small_graph());
  ASSERT_EQ(graph.nodes.size(), 1u);
  EXPECT_EQ(graph.nodes[0].op, "relu");
}

TEST(PassRunner, NamesThePassThatBreaksTheGraph) {
  const Pass broken{"broken", [](Graph graph) {
                      graph.nodes[0].inputs[0] = 99;
                      return graph;
                    }};
  try {
    run_passes(small_graph(), {broken});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("broken"), std::string::npos);
  }
}

TEST(PassRunner, RecordsEachPass) {
  std::vector<PassRecord> records;
  run_passes(small_graph(), {{"dead code", remove_dead_code}}, &records);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].nodes_before, 2u);
  EXPECT_EQ(records[0].nodes_after, 1u);
}

TEST(MemoryPlan, LiveBuffersNeverOverlap) {
  const RandomStream random{.seed = 3};
  for (std::uint32_t round = 0; round < 50; ++round) {
    std::vector<Lifetime> buffers;
    for (std::uint32_t i = 0; i < 40; ++i) {
      const PhiloxBlock draw = random.block(round * 100 + i);
      const int first = static_cast<int>(uniform_below(draw[0], 30));
      buffers.push_back({1 + uniform_below(draw[1], 1000), first,
                         first + static_cast<int>(uniform_below(draw[2], 8))});
    }
    const MemoryPlan plan = plan_memory(buffers);
    EXPECT_GE(plan.bytes, plan.lower_bound);
    for (std::size_t a = 0; a < buffers.size(); ++a) {
      EXPECT_LE(plan.offsets[a] + buffers[a].bytes, plan.bytes);
      for (std::size_t b = 0; b < a; ++b) {
        const bool together =
            buffers[a].first <= buffers[b].last && buffers[b].first <= buffers[a].last;
        const bool overlap = plan.offsets[a] < plan.offsets[b] + buffers[b].bytes &&
                             plan.offsets[b] < plan.offsets[a] + buffers[a].bytes;
        EXPECT_FALSE(together && overlap);
      }
    }
  }
}

TEST(MemoryPlan, BuffersThatNeverMeetShareMemory) {
  const std::vector<Lifetime> buffers = {{1000, 0, 1}, {1000, 2, 3}};
  EXPECT_EQ(plan_memory(buffers).bytes, 1024u);
}

}  // namespace
}  // namespace concord

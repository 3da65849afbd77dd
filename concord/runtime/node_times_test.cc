#include "concord/runtime/node_times.h"

#include <gtest/gtest.h>

#include "concord/graph/builder.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/shape_ops.h"
#include "concord/ops/step.h"

namespace concord {
namespace {

TEST(NodeTimes, EachKindIsTimedOnceAndViewsAreFree) {
  Graph graph;
  GraphBuilder builder{graph};
  const ValueId small = builder.input("small", {DType::kF32, {4, 4}}, Input::Kind::kBatch);
  const ValueId large = builder.input("large", {DType::kF32, {1024, 1024}}, Input::Kind::kBatch);
  const ValueId a = ops::relu(builder, small);
  const ValueId b = ops::relu(builder, a);
  const ValueId c = ops::relu(builder, large);
  const ValueId view = ops::reshape(builder, c, {1024 * 1024});
  const ValueId sum = ops::leaf_sum(builder, b);
  builder.output("view", view);
  builder.output("sum", sum);

  std::vector<std::size_t> nodes(graph.nodes.size());
  for (std::size_t n = 0; n < nodes.size(); ++n) nodes[n] = n;
  KernelPolicy policy{.measure = false};
  const std::vector<std::optional<double>> seconds = time_nodes(graph, nodes, policy);
  const auto of = [&](ValueId id) {
    return seconds[static_cast<std::size_t>(graph.value(id).producer)];
  };
  ASSERT_EQ(seconds.size(), nodes.size());
  EXPECT_GT(of(a).value(), 0);
  EXPECT_EQ(of(a), of(b));
  EXPECT_GT(of(c).value(), of(a).value());
  EXPECT_EQ(of(view).value(), 0);
  EXPECT_FALSE(of(sum));
}

}  // namespace
}  // namespace concord

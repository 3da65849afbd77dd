#include "concord/passes/merge_linear_cross_entropy.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "concord/autodiff/backpropagate.h"
#include "concord/graph/verifier.h"
#include "concord/kernels/ref/reference.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/linear_cross_entropy.h"
#include "concord/ops/step.h"

namespace concord {
namespace {

// Loss, count and gradients of a layer; what is differentiated is the loss, or its square.
Graph layer(bool squared) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {2, 3}}), w = b.input("w", {DType::kF32, {4, 3}});
  const ValueId labels = b.input("labels", {DType::kI32, {2}});
  const ValueId weight = ops::constant(b, {DType::kF32, {}}, 0.5);
  const auto [loss, correct] = ops::linear_cross_entropy(b, {ops::neg(b, x), w}, labels, weight);
  const ValueId root = squared ? ops::square(b, loss) : loss;
  const std::vector<ValueId> gradients = backpropagate(b, root, std::vector{x, w});
  for (const ValueId value : {root, correct, gradients[0], gradients[1]}) {
    b.output("output" + std::to_string(graph.outputs.size()), value);
  }
  return graph;
}

std::vector<std::vector<double>> outputs_of(const Graph& graph) {
  const std::vector<ref::Array> values = ref::evaluate(
      graph, {{"x", ref::Array({2, 3}, {1, -2, 3, 0.5, 2, -1})},
              {"w", ref::Array({4, 3}, {0.1, 0, -1, 0.5, 2, 0.2, -0.3, 0.4, 1, 0, 0.7, -0.6})},
              {"labels", ref::Array({2}, {0, 3})}});
  std::vector<std::vector<double>> outputs;
  for (const Output& output : graph.outputs) {
    outputs.push_back(values[static_cast<std::size_t>(output.value)].data);
  }
  return outputs;
}

std::ptrdiff_t count(const Graph& graph, const std::string& op) {
  return std::ranges::count(graph.nodes, op, &Node::op);
}

TEST(MergeLinearCrossEntropy, LeavesTheBackwardOpAndChangesNothing) {
  const Graph graph = layer(false);
  const Graph merged = merge_linear_cross_entropy(graph);
  verify(merged);
  EXPECT_EQ(count(graph, "linear_cross_entropy"), 1);
  EXPECT_EQ(count(merged, "linear_cross_entropy"), 0);
  EXPECT_EQ(count(merged, "linear_cross_entropy_backward"), 1);
  EXPECT_EQ(merged.nodes.size(), graph.nodes.size() - 1);
  EXPECT_EQ(outputs_of(merged), outputs_of(graph));
}

TEST(MergeLinearCrossEntropy, KeepsBothWhereTheGradientDependsOnTheLoss) {
  const Graph graph = layer(true);
  const Graph merged = merge_linear_cross_entropy(graph);
  verify(merged);
  EXPECT_EQ(count(merged, "linear_cross_entropy"), 1);
  EXPECT_EQ(outputs_of(merged), outputs_of(graph));
}

}  // namespace
}  // namespace concord

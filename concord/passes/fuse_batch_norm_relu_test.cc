#include "concord/passes/fuse_batch_norm_relu.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "concord/autodiff/backpropagate.h"
#include "concord/graph/verifier.h"
#include "concord/kernels/ref/reference.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/normalization.h"
#include "concord/passes/dead_code.h"

namespace concord {
namespace {

// Two norms with a ReLU; the first norm's output is also read by itself when `shared`.
Graph two_norms(bool shared) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {4, 3}});
  const ValueId gamma = b.input("gamma", {DType::kF32, {3}}, Input::Kind::kStep);
  const ValueId beta = b.input("beta", {DType::kF32, {3}}, Input::Kind::kStep);
  const ValueId first = ops::batch_norm(b, x, gamma, beta, 1e-5).y;
  ValueId y = ops::relu(b, first);
  if (shared) y = ops::add(b, y, first);
  y = ops::relu(b, ops::batch_norm(b, y, gamma, beta, 1e-5).y);
  const ValueId loss = ops::sum_to_shape(b, ops::mul(b, y, y), Shape{});
  const std::vector<ValueId> gradients = backpropagate(b, loss, std::vector{x, gamma, beta});
  b.output("loss", loss);
  for (std::size_t i = 0; i < gradients.size(); ++i)
    b.output("gradient" + std::to_string(i), gradients[i]);
  return remove_dead_code(graph);
}

// Two residual blocks: x itself, then a norm of it, is added to a norm. `late`: after that norm.
Graph residual_blocks(bool late) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {4, 3}});
  const ValueId gamma = b.input("gamma", {DType::kF32, {3}}, Input::Kind::kStep);
  const ValueId beta = b.input("beta", {DType::kF32, {3}}, Input::Kind::kStep);
  const auto norm = [&](ValueId v) { return ops::batch_norm(b, v, gamma, beta, 1e-5).y; };
  const ValueId y = ops::relu(b, ops::add(b, norm(x), x));
  const ValueId branch = norm(ops::mul(b, y, y));
  const ValueId shortcut = late ? ops::mul(b, y, gamma) : norm(y);
  const ValueId z = ops::relu(b, ops::add(b, branch, shortcut));
  const ValueId loss = ops::sum_to_shape(b, ops::mul(b, z, z), Shape{});
  const std::vector<ValueId> gradients = backpropagate(b, loss, std::vector{x, gamma, beta});
  b.output("loss", loss);
  for (std::size_t i = 0; i < gradients.size(); ++i)
    b.output("gradient" + std::to_string(i), gradients[i]);
  return remove_dead_code(graph);
}

std::ptrdiff_t count(const Graph& graph, const std::string& op) {
  return std::count_if(graph.nodes.begin(), graph.nodes.end(),
                       [&](const Node& node) { return node.op == op; });
}

std::vector<double> outputs_of(const Graph& graph) {
  ref::Bindings bindings;
  bindings["x"] = ref::Array({4, 3}, {1, -2, 3, 0.5, 2, -1, -3, 1, 0.2, 4, -0.5, 1});
  bindings["gamma"] = ref::Array({3}, {1, 0.5, 2});
  bindings["beta"] = ref::Array({3}, {0.1, -0.2, 0.3});
  const std::vector<ref::Array> values = ref::evaluate(graph, bindings);
  std::vector<double> all;
  for (const Output& output : graph.outputs) {
    const ref::Array& value = values[static_cast<std::size_t>(output.value)];
    all.insert(all.end(), value.data.begin(), value.data.end());
  }
  return all;
}

TEST(FuseBatchNormRelu, FusesBothDirectionsAndChangesNothing) {
  const Graph graph = two_norms(false);
  const Graph fused = fuse_batch_norm_relu(graph);
  verify(fused);
  EXPECT_EQ(count(graph, "relu"), 2);
  EXPECT_EQ(count(fused, "relu"), 0);
  EXPECT_EQ(count(fused, "relu_backward"), 0);
  EXPECT_EQ(outputs_of(graph), outputs_of(fused));
}

TEST(FuseBatchNormRelu, LeavesANormAloneWhoseOutputIsReadElsewhere) {
  const Graph graph = two_norms(true);
  const Graph fused = fuse_batch_norm_relu(graph);
  verify(fused);
  EXPECT_EQ(count(fused, "relu"), 1);
  EXPECT_EQ(outputs_of(graph), outputs_of(fused));
}

TEST(FuseBatchNormRelu, FusesTheAdditionsThatEndResidualBlocks) {
  const Graph graph = residual_blocks(/*late=*/false);
  const Graph fused = fuse_batch_norm_relu(graph);
  verify(fused);
  EXPECT_EQ(count(graph, "relu"), 2);
  EXPECT_EQ(count(fused, "relu"), 0);
  EXPECT_EQ(count(fused, "relu_backward"), 0);
  EXPECT_EQ(count(fused, "batch_norm"), 3);
  EXPECT_EQ(count(graph, "add") - count(fused, "add"), 2);
  EXPECT_EQ(outputs_of(graph), outputs_of(fused));
}

TEST(FuseBatchNormRelu, LeavesAnAdditionAloneWhoseOtherSideComesLater) {
  const Graph graph = residual_blocks(/*late=*/true);
  const Graph fused = fuse_batch_norm_relu(graph);
  verify(fused);
  EXPECT_EQ(count(fused, "relu"), 1);
  EXPECT_EQ(outputs_of(graph), outputs_of(fused));
}

}  // namespace
}  // namespace concord

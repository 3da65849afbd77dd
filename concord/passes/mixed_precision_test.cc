#include "concord/passes/mixed_precision.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "concord/autodiff/backpropagate.h"
#include "concord/graph/printer.h"
#include "concord/graph/verifier.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/gather.h"
#include "concord/ops/linear_cross_entropy.h"
#include "concord/ops/loss.h"
#include "concord/ops/matmul.h"
#include "concord/ops/normalization.h"
#include "concord/ops/softmax.h"
#include "concord/ops/step.h"
#include "concord/passes/dead_code.h"

namespace concord {
namespace {

using Role = State::Role;

ValueId parameter(GraphBuilder& b, const char* name, const Shape& shape) {
  return b.state(name, {DType::kF32, shape}, Role::kParameter, {});
}

Graph converted(const Graph& graph) {
  Graph result = mixed_precision(remove_dead_code(graph));
  verify(result);
  return result;
}

std::vector<const Node*> nodes_of(const Graph& graph, std::string_view op) {
  std::vector<const Node*> nodes;
  for (const Node& node : graph.nodes) {
    if (node.op == op) nodes.push_back(&node);
  }
  return nodes;
}

// Types of inputs, then of outputs: "bf16 bf16 f32 -> bf16".
std::string types(const Graph& graph, const Node& node) {
  std::string text;
  for (const ValueId id : node.inputs) text += fmt::format("{} ", to_string(graph.type(id).dtype));
  text += "->";
  for (const ValueId id : node.outputs) text += fmt::format(" {}", to_string(graph.type(id).dtype));
  return text;
}

// The types of every node of this op, in order.
std::vector<std::string> types(const Graph& graph, std::string_view op) {
  std::vector<std::string> result;
  for (const Node* node : nodes_of(graph, op)) result.push_back(types(graph, *node));
  return result;
}

using Types = std::vector<std::string>;

// A classifier of two layers with a norm between them, and the leaf_sums of its gradients.
Graph classifier_step() {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {4, 8}});
  const ValueId labels = b.input("labels", {DType::kI32, {4}});
  const ValueId weight = b.input("weight", {DType::kF32, {}}, Input::Kind::kStep);
  const std::vector<ValueId> parameters = {parameter(b, "w1", {16, 8}), parameter(b, "b1", {16}),
                                           parameter(b, "gamma", {16}), parameter(b, "beta", {16}),
                                           parameter(b, "w2", {3, 16})};
  ValueId y = ops::matmul(b, x, parameters[0], {.transpose_b = true}, parameters[1]);
  y = ops::layer_norm(b, ops::relu(b, y), parameters[2], parameters[3], 1e-5);
  y = ops::matmul(b, y, parameters[4], {.transpose_b = true});
  const ValueId loss = ops::softmax_cross_entropy(b, y, labels, weight);
  b.output("loss", ops::leaf_sum(b, loss));
  const std::vector<ValueId> gradients = backpropagate(b, loss, parameters);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    b.set_next(parameters[i], ops::add(b, parameters[i], ops::leaf_sum(b, gradients[i])));
  }
  return graph;
}

TEST(MixedPrecision, ComputesActivationsInBf16AndGradientsOfParametersInF32) {
  const Graph graph = converted(classifier_step());
  // Forward with bias, forward to the loss; then dL/dx and dL/dw of the second, dL/dw of the first.
  EXPECT_EQ(types(graph, "matmul"),
            (Types{"bf16 bf16 f32 -> bf16", "bf16 bf16 -> f32", "bf16 bf16 -> bf16",
                   "bf16 bf16 -> f32", "bf16 bf16 -> f32"}));
  EXPECT_EQ(types(graph, "relu"), Types{"bf16 -> bf16"});
  EXPECT_EQ(types(graph, "layer_norm"), Types{"bf16 f32 f32 -> bf16 f32 f32"});
  EXPECT_EQ(types(graph, "layer_norm_backward"), Types{"bf16 bf16 f32 f32 f32 -> bf16 f32 f32"});
  EXPECT_EQ(types(graph, "relu_backward"), Types{"bf16 bf16 -> bf16"});
  EXPECT_EQ(types(graph, "sum_to_shape"), Types{"bf16 -> f32"});
  EXPECT_EQ(types(graph, "softmax_cross_entropy"), Types{"f32 i32 f32 -> f32 f32"});
  for (const State& state : graph.states) EXPECT_EQ(graph.type(state.value).dtype, DType::kF32);
  for (const Node* node : nodes_of(graph, "leaf_sum")) {
    EXPECT_EQ(types(graph, *node), "f32 -> f32");
  }
}

TEST(MixedPrecision, CastsEachValueOnceAndWeightsInThePrologue) {
  const Graph graph = converted(classifier_step());
  const std::vector<Phase> phase = phases(graph);
  std::vector<ValueId> sources;
  int in_prologue = 0;
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    if (node.op != "cast") continue;
    EXPECT_EQ(std::ranges::count(sources, node.inputs[0]), 0) << to_string(graph, node);
    sources.push_back(node.inputs[0]);
    in_prologue += phase[n] == Phase::kPrologue ? 1 : 0;
  }
  EXPECT_EQ(sources.size(), 4u);  // x, w1, w2, dL/dlogits
  EXPECT_EQ(in_prologue, 2);
}

TEST(MixedPrecision, AddsUpGradientsOfTiedWeightsInF32) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId ids = b.input("ids", {DType::kI32, {4}});
  const ValueId table = parameter(b, "table", {7, 5}), place = parameter(b, "place", {4, 5});
  const ValueId x = ops::add(b, ops::embedding(b, table, ids), place);
  const ValueId logits = ops::matmul(b, x, table, {.transpose_b = true});
  const ValueId weight = b.input("weight", {DType::kF32, {}}, Input::Kind::kStep);
  const ValueId loss = ops::softmax_cross_entropy(b, logits, ids, weight);
  const std::vector<ValueId> gradients = backpropagate(b, loss, std::vector<ValueId>{table, place});
  b.output("table", ops::leaf_sum(b, gradients[0]));
  b.output("place", ops::leaf_sum(b, gradients[1]));
  graph = converted(graph);
  EXPECT_EQ(types(graph, "gather"), Types{"f32 i32 -> f32"});
  EXPECT_EQ(types(graph, "add"), (Types{"f32 f32 -> f32", "f32 f32 -> f32"}));
  EXPECT_EQ(types(graph, "matmul"),
            (Types{"bf16 bf16 -> f32", "bf16 bf16 -> bf16", "bf16 bf16 -> f32"}));
  EXPECT_EQ(types(graph, "gather_backward"), Types{"bf16 i32 -> f32"});
}

TEST(MixedPrecision, TakesALayerInBf16WhoseLossAndGradientsOfParametersAreF32) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {4, 8}}), labels = b.input("y", {DType::kI32, {4}});
  const ValueId u = parameter(b, "u", {8, 8}), w = parameter(b, "w", {3, 8});
  const ValueId bias = parameter(b, "bias", {3});
  const ValueId one = ops::constant(b, {DType::kF32, {}}, 1);
  const auto [loss, correct] =
      ops::linear_cross_entropy(b, {ops::matmul(b, x, u), w, bias}, labels, one);
  b.output("correct", ops::leaf_sum(b, correct));
  const std::vector<ValueId> parameters = {u, w, bias};
  const std::vector<ValueId> gradients = backpropagate(b, loss, parameters);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    b.set_next(parameters[i], ops::add(b, parameters[i], ops::leaf_sum(b, gradients[i])));
  }
  graph = converted(graph);
  EXPECT_EQ(types(graph, "linear_cross_entropy"), Types{"bf16 bf16 i32 f32 f32 -> f32 f32"});
  EXPECT_EQ(types(graph, "linear_cross_entropy_backward"),
            Types{"f32 bf16 bf16 i32 f32 f32 -> f32 f32 bf16 f32 f32"});
  EXPECT_EQ(types(graph, "matmul"), (Types{"bf16 bf16 -> bf16", "bf16 bf16 -> f32"}));
}

TEST(MixedPrecision, LeavesLossesAndWhatHasNoProductsInF32) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {4, 8}});
  const ValueId targets = b.input("targets", {DType::kF32, {4, 2}});
  const ValueId one = ops::constant(b, {DType::kF32, {}}, 1);
  const ValueId y = ops::matmul(b, ops::tanh(b, x), parameter(b, "w", {8, 2}));
  b.output("loss", ops::leaf_sum(b, ops::mean_squared_error(b, y, targets, one)));
  graph = converted(graph);
  EXPECT_EQ(types(graph, "tanh"), Types{"f32 -> f32"});
  EXPECT_EQ(types(graph, "matmul"), Types{"bf16 bf16 -> f32"});
  EXPECT_EQ(types(graph, "sub"), Types{"f32 f32 -> f32"});
  EXPECT_EQ(types(graph, "square"), Types{"f32 -> f32"});
}

TEST(MixedPrecision, OutputsOfTheGraphAndTheUpdateStayInF32) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {4, 8}});
  const ValueId w = parameter(b, "w", {8, 8});
  const ValueId y = ops::relu(b, ops::matmul(b, x, w));
  b.output("hidden", y);
  b.output("logits", ops::matmul(b, y, w));
  b.set_next(w, ops::matmul(b, w, w));
  graph = converted(graph);
  // The hidden layer is taken in bf16 by the next product, and cast back for who reads it outside.
  EXPECT_EQ(types(graph, "matmul"),
            (Types{"bf16 bf16 -> bf16", "bf16 bf16 -> f32", "f32 f32 -> f32"}));
  for (const Output& output : graph.outputs) {
    EXPECT_EQ(graph.type(output.value).dtype, DType::kF32) << output.name;
  }
}

}  // namespace
}  // namespace concord

#include "concord/optim/muon.h"

#include <vector>

#include "concord/base/error.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/matmul.h"
#include "concord/ops/optimizer.h"
#include "concord/ops/shape_ops.h"
#include "concord/ops/step.h"

namespace concord {
namespace {

// Which values the output "loss" depends on.
std::vector<bool> ancestors_of_loss(const Graph& graph) {
  const ValueId loss = graph.find_output("loss");
  if (loss == kNoValue) {
    fail("muon: the graph has no output \"loss\", before which the classifier is looked for");
  }
  std::vector<bool> needed(graph.values.size(), false);
  needed[static_cast<std::size_t>(loss)] = true;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    bool is_needed = false;
    for (const ValueId output : node->outputs) {
      is_needed = is_needed || needed[static_cast<std::size_t>(output)];
    }
    if (!is_needed) continue;
    for (const ValueId input : node->inputs) needed[static_cast<std::size_t>(input)] = true;
  }
  return needed;
}

}  // namespace

ValueId orthogonalize(GraphBuilder& builder, ValueId x) {
  const Shape shape = builder.shape(x);
  const bool is_tall = shape[0] > shape[1];  // then X^T X is smaller than X X^T
  const ValueId square = ops::cast(builder, ops::sum_of_squares(builder, {x}), DType::kF32);
  const ValueId least = ops::constant(builder, {DType::kF32, {}}, 1e-7);  // x may be all zeros
  x = ops::div(builder, x, ops::add(builder, ops::sqrt(builder, square), least));
  for (int i = 0; i < 5; ++i) {
    const ValueId a = ops::matmul(builder, x, x, {.transpose_a = is_tall, .transpose_b = !is_tall});
    const ValueId polynomial = ops::add(builder, ops::scale(builder, a, -4.7750),
                                        ops::scale(builder, ops::matmul(builder, a, a), 2.0315));
    const ValueId change =
        is_tall ? ops::matmul(builder, x, polynomial) : ops::matmul(builder, polynomial, x);
    x = ops::add(builder, ops::scale(builder, x, 3.4445), change);
  }
  return x;
}

std::set<ValueId> hidden_matrices(const Graph& graph) {
  std::set<ValueId> parameters;
  for (const State& state : graph.states) {
    const bool is_matrix = graph.type(state.value).shape.rank() >= 2;
    if (state.role == State::Role::kParameter && is_matrix) parameters.insert(state.value);
  }
  std::set<ValueId> hidden, embeddings, last;
  const std::vector<bool> needed = ancestors_of_loss(graph);
  for (const Node& node : graph.nodes) {
    if (!needed[static_cast<std::size_t>(node.outputs[0])]) continue;
    std::set<ValueId> read;
    for (const ValueId input : node.inputs) {
      if (parameters.contains(input)) read.insert(input);
    }
    if (read.empty()) continue;
    if (node.op == "gather") embeddings.insert(read.begin(), read.end());
    if (node.op != "matmul" && node.op != "conv2d" && node.op != "linear_cross_entropy") continue;
    hidden.insert(last.begin(), last.end());
    last = read;
  }
  for (const auto* excepted : {&embeddings, &last}) {
    for (const ValueId parameter : *excepted) hidden.erase(parameter);
  }
  return hidden;
}

}  // namespace concord

#include "concord/passes/merge_linear_cross_entropy.h"

#include <algorithm>

#include "concord/passes/rewrite.h"

namespace concord {
namespace {

// Whether `backward` is the backward op of `forward`, and dL/dloss a constant.
bool belongs_to(const Graph& graph, const Node& backward, const Node& forward) {
  if (backward.op != "linear_cross_entropy_backward") return false;
  const NodeId gradient = graph.value(backward.inputs[0]).producer;
  return gradient != kNoNode && graph.node(gradient).op == "constant" &&
         backward.attributes == forward.attributes &&
         std::equal(backward.inputs.begin() + 1, backward.inputs.end(), forward.inputs.begin(),
                    forward.inputs.end());
}

}  // namespace

Graph merge_linear_cross_entropy(const Graph& graph) {
  Rewriter rewriter(graph);
  const auto is_there = [&](const Node& node) { return rewriter.has(node.outputs[0]); };
  for (const Node& node : graph.nodes) {
    if (is_there(node)) continue;
    auto backward = graph.nodes.end();
    if (node.op == "linear_cross_entropy") {
      backward = std::ranges::find_if(
          graph.nodes, [&](const Node& other) { return belongs_to(graph, other, node); });
    }
    if (backward == graph.nodes.end()) {
      rewriter.copy(node);
      continue;
    }
    const Node& constant = graph.node(graph.value(backward->inputs[0]).producer);
    for (const Node* early : {&constant, &*backward}) {
      if (!is_there(*early)) rewriter.copy(*early);
    }
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      rewriter.map(node.outputs[o], rewriter[backward->outputs[o]]);
    }
  }
  return rewriter.finish();
}

}  // namespace concord

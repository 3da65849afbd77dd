#include "concord/passes/fuse_batch_norm_relu.h"

#include <vector>

#include "concord/passes/rewrite.h"

namespace concord {
namespace {

class Fusion {
 public:
  explicit Fusion(const Graph& graph) : graph_(graph), uses_(graph.values.size(), 0) {
    for (const Node& node : graph.nodes) {
      for (const ValueId input : node.inputs) ++uses_[index(input)];
    }
    for (const Output& output : graph.outputs) ++uses_[index(output.value)];
    for (const State& state : graph.states) {
      if (state.next != kNoValue) ++uses_[index(state.next)];
    }
  }

  Graph run() {
    std::vector<bool> dropped(graph_.nodes.size(), false);
    std::vector<ValueId> relu_of(graph_.values.size(), kNoValue);  // batch norm's y -> relu's y
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& node = graph_.nodes[i];
      if (node.op == "relu" && is_plain_norm(producer(node.inputs[0])) &&
          uses_[index(node.inputs[0])] == 1) {
        relu_of[index(node.inputs[0])] = node.outputs[0];
        dropped[i] = true;
      }
    }
    std::vector<const Node*> relu_before(graph_.nodes.size(), nullptr);  // backward of a fused pair
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& node = graph_.nodes[i];
      if (node.op != "batch_norm_backward") continue;
      const ValueId y = relu_of[index(norm_output(node))];
      if (y == kNoValue) continue;
      const NodeId backward = graph_.value(node.inputs[0]).producer;
      if (backward == kNoNode) continue;
      const Node& relu = graph_.node(backward);
      if (relu.op != "relu_backward" || relu.inputs[1] != y || uses_[index(node.inputs[0])] != 1)
        continue;
      relu_before[i] = &relu;
      dropped[static_cast<std::size_t>(backward)] = true;
    }
    // A forward pair is fused only together with its backward.
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& node = graph_.nodes[i];
      if (node.op != "batch_norm_backward" || relu_before[i] != nullptr) continue;
      const ValueId y = relu_of[index(norm_output(node))];
      if (y == kNoValue) continue;
      relu_of[index(norm_output(node))] = kNoValue;
      dropped[static_cast<std::size_t>(graph_.value(y).producer)] = false;
    }
    return rewrite(dropped, relu_of, relu_before);
  }

 private:
  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

  const Node* producer(ValueId id) const {
    const NodeId node = graph_.value(id).producer;
    return node == kNoNode ? nullptr : &graph_.node(node);
  }
  static bool is_plain_norm(const Node* node) {
    return node != nullptr && (node->op == "batch_norm" || node->op == "batch_norm_inference") &&
           node->attributes.integer("relu") == 0;
  }
  // The y of the batch norm that a batch_norm_backward belongs to: they share the statistics.
  ValueId norm_output(const Node& backward) const {
    return producer(backward.inputs[3])->outputs[0];
  }

  Graph rewrite(const std::vector<bool>& dropped, const std::vector<ValueId>& relu_of,
                const std::vector<const Node*>& relu_before) const {
    Rewriter rewriter(graph_);
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      if (dropped[i]) continue;
      Node node = graph_.nodes[i];
      const ValueId y = is_plain_norm(&node) ? relu_of[index(node.outputs[0])] : kNoValue;
      if (relu_before[i] != nullptr) {
        node.inputs[0] = relu_before[i]->inputs[0];
        node.inputs.push_back(relu_before[i]->inputs[1]);
      }
      if (y != kNoValue || relu_before[i] != nullptr) node.attributes.set("relu", std::int64_t{1});
      rewriter.copy(node);
      if (y != kNoValue) rewriter.map(y, rewriter[node.outputs[0]]);
    }
    return rewriter.finish();
  }

  const Graph& graph_;
  std::vector<int> uses_;
};

}  // namespace

Graph fuse_batch_norm_relu(const Graph& graph) { return Fusion(graph).run(); }

}  // namespace concord

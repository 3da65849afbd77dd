#include "concord/passes/fuse_batch_norm_relu.h"

#include <optional>
#include <utility>
#include <vector>

#include "concord/passes/rewrite.h"

namespace concord {
namespace {

// The nodes of a chain, by id; those of the backward pass are there in training.
struct Chain {
  NodeId norm = kNoNode, add = kNoNode, relu = kNoNode;
  ValueId addend = kNoValue;
  NodeId relu_backward = kNoNode, norm_backward = kNoNode;
};

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

  Graph run() const {
    std::vector<const Chain*> chain_of(graph_.nodes.size(), nullptr);
    const std::vector<Chain> chains = find_chains();
    for (const Chain& chain : chains) {
      for (const NodeId node :
           {chain.norm, chain.add, chain.relu, chain.relu_backward, chain.norm_backward}) {
        if (node != kNoNode) chain_of[static_cast<std::size_t>(node)] = &chain;
      }
    }
    Rewriter rewriter(graph_);
    for (NodeId n = 0; n < static_cast<NodeId>(graph_.nodes.size()); ++n) {
      const Chain* chain = chain_of[static_cast<std::size_t>(n)];
      if (chain == nullptr) rewriter.copy(graph_.node(n));
      if (chain != nullptr && n == chain->norm) add_forward(*chain, rewriter);
      if (chain != nullptr && n == chain->relu_backward) add_backward(*chain, rewriter);
    }
    return rewriter.finish();
  }

 private:
  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

  NodeId producer(ValueId id) const { return graph_.value(id).producer; }
  const Node* node_of(ValueId id) const {
    return producer(id) == kNoNode ? nullptr : &graph_.node(producer(id));
  }
  bool is_read_once(ValueId id) const { return uses_[index(id)] == 1; }

  std::vector<Chain> find_chains() const {
    std::vector<Chain> chains;
    for (NodeId n = 0; n < static_cast<NodeId>(graph_.nodes.size()); ++n) {
      if (graph_.node(n).op != "relu") continue;
      std::optional<Chain> chain = find_forward(n);
      if (chain && find_backward(*chain)) chains.push_back(*chain);
    }
    return chains;
  }

  std::optional<Chain> find_forward(NodeId relu) const {
    const ValueId before = graph_.node(relu).inputs[0];
    const Node* node = node_of(before);
    if (node == nullptr || !is_read_once(before)) return std::nullopt;
    if (is_plain_norm(*node)) return Chain{.norm = producer(before), .relu = relu};
    if (node->op != "add") return std::nullopt;
    ValueId addend = node->inputs[0], branch = node->inputs[1];
    if (producer(addend) > producer(branch)) std::swap(addend, branch);
    const Node* norm = node_of(branch);
    if (norm == nullptr || norm->op != "batch_norm" || !is_plain_norm(*norm) ||
        !is_read_once(branch) || graph_.type(addend) != graph_.type(branch)) {
      return std::nullopt;
    }
    return Chain{.norm = producer(branch), .add = producer(before), .relu = relu, .addend = addend};
  }

  static bool is_plain_norm(const Node& node) {
    return (node.op == "batch_norm" || node.op == "batch_norm_inference") &&
           node.attributes.integer("relu") == 0;
  }

  // Finds the chain's backward pass. False where there is one that cannot be fused.
  bool find_backward(Chain& chain) const {
    const Node& norm = graph_.node(chain.norm);
    const ValueId y = graph_.node(chain.relu).outputs[0];
    for (NodeId n = chain.relu + 1; n < static_cast<NodeId>(graph_.nodes.size()); ++n) {
      const Node& node = graph_.node(n);
      if (node.op == "relu_backward" && node.inputs[1] == y) chain.relu_backward = n;
      // It reads the mean of its forward pass.
      if (node.op != "batch_norm_backward" || node.inputs[3] != norm.outputs[1]) continue;
      chain.norm_backward = n;
      return chain.relu_backward != kNoNode && producer(node.inputs[0]) == chain.relu_backward &&
             (chain.add != kNoNode || is_read_once(node.inputs[0]));
    }
    return chain.relu_backward == kNoNode;
  }

  // In place of the norm: all that it reads is there.
  void add_forward(const Chain& chain, Rewriter& rewriter) const {
    Node node = graph_.node(chain.norm);
    node.attributes.set("relu", std::int64_t{1});
    if (chain.addend != kNoValue) node.inputs.push_back(chain.addend);
    rewriter.copy(node);
    rewriter.map(graph_.node(chain.relu).outputs[0], rewriter[node.outputs[0]]);
  }

  // In place of ReLU's backward: others may read its result before the norm's backward does.
  void add_backward(const Chain& chain, Rewriter& rewriter) const {
    const Node& relu = graph_.node(chain.relu_backward);
    Node node = graph_.node(chain.norm_backward);
    node.attributes.set("relu", std::int64_t{1});
    node.inputs[0] = relu.inputs[0];
    node.inputs.push_back(relu.inputs[1]);
    if (chain.add != kNoNode) {
      node.attributes.set("adds", std::int64_t{1});
      node.outputs.push_back(relu.outputs[0]);
    }
    rewriter.copy(node);
  }

  const Graph& graph_;
  std::vector<int> uses_;
};

}  // namespace

Graph fuse_batch_norm_relu(const Graph& graph) { return Fusion(graph).run(); }

}  // namespace concord

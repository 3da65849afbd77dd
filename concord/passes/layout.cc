#include "concord/passes/layout.h"

#include "concord/passes/rewrite.h"

namespace concord {
namespace {

class LayoutAssignment {
 public:
  LayoutAssignment(const Graph& graph, LayoutChoice choice)
      : graph_(graph), choice_(std::move(choice)), rewriter_(graph) {}

  Graph run() {
    for (const Input& input : graph_.inputs) set_layout(input.value);
    for (const State& state : graph_.states) set_layout(state.value);
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) copy(graph_.nodes[n], choice_.nodes[n]);
    return finish();
  }

 private:
  Value& value(ValueId id) { return rewriter_.graph().value(id); }

  void set_layout(ValueId old_value) {
    value(rewriter_[old_value]).layout = choice_.values[static_cast<std::size_t>(old_value)];
  }

  void copy(const Node& old_node, const NodeLayouts& layouts) {
    Node node = old_node;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      node.inputs[i] = in_layout(old_node.inputs[i], layouts.inputs[i]);
    }
    std::vector<Value> outputs;
    for (const ValueId output : old_node.outputs) outputs.push_back(graph_.value(output));
    const std::vector<ValueId> ids = rewriter_.add(std::move(node), outputs);
    for (std::size_t o = 0; o < ids.size(); ++o) {
      rewriter_.map(old_node.outputs[o], ids[o]);
      set_layout(old_node.outputs[o]);
    }
  }

  // The new value of an old one in `layout`, reordered if it lies otherwise.
  ValueId in_layout(ValueId old_value, const Layout& layout) {
    const ValueId id = rewriter_[old_value];
    if (value(id).layout == layout) return id;
    for (const auto& [source, copy] : reorders_) {
      if (source == id && value(copy).layout == layout) return copy;
    }
    const TensorType type = value(id).type;
    const ValueId copy = rewriter_.add({.op = "reorder", .inputs = {id}}, {{.type = type}})[0];
    value(copy).layout = layout;
    reorders_.emplace_back(id, copy);
    return copy;
  }

  // One value may be the next of several states, and an output as well, each in its own layout.
  Graph finish() {
    std::vector<ValueId> nexts, outputs;
    for (const State& state : graph_.states) {
      const Layout& layout = choice_.values[static_cast<std::size_t>(state.value)];
      nexts.push_back(state.next == kNoValue ? kNoValue : in_layout(state.next, layout));
    }
    for (const Output& output : graph_.outputs) {
      outputs.push_back(in_layout(output.value, Layout()));
    }
    Graph graph = rewriter_.finish();
    for (std::size_t i = 0; i < nexts.size(); ++i) graph.states[i].next = nexts[i];
    for (std::size_t i = 0; i < outputs.size(); ++i) graph.outputs[i].value = outputs[i];
    return graph;
  }

  const Graph& graph_;
  const LayoutChoice choice_;
  Rewriter rewriter_;
  std::vector<std::pair<ValueId, ValueId>> reorders_;
};

}  // namespace

Graph assign_layouts(const Graph& graph, const LayoutOracle& oracle, const LayoutOptions& layouts) {
  return LayoutAssignment(graph, choose_layouts(graph, oracle, layouts)).run();
}

}  // namespace concord

#include "concord/passes/layout.h"

#include "concord/base/error.h"
#include "concord/passes/rewrite.h"

namespace concord {
namespace {

class LayoutAssignment {
 public:
  LayoutAssignment(const Graph& graph, const LayoutOracle& oracle, const PinnedLayouts& pinned)
      : graph_(graph), oracle_(oracle), pinned_(pinned), rewriter_(graph) {
    layouts_.resize(rewriter_.graph().values.size(), Layout());
    for (const State& state : rewriter_.graph().states) {
      const auto pin = pinned.states.find(rewriter_.graph().value(state.value).name);
      if (pin == pinned.states.end()) {
        layouts_[index(state.value)] = std::nullopt;
      } else {
        set_layout(state.value, pin->second);
      }
    }
  }

  Graph run() {
    for (const Node& node : graph_.nodes) {
      if (node.op == "leaf_sum") {
        visit_leaf_sum(node);
      } else {
        visit(node);
      }
    }
    for (const State& state : graph_.states) {
      const ValueId value = rewriter_[state.value];
      if (!layouts_[index(value)]) set_layout(value, Layout());
    }
    return finish();
  }

 private:
  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

  void set_layout(ValueId id, const Layout& layout) {
    rewriter_.graph().value(id).layout = layout;
    layouts_.resize(rewriter_.graph().values.size());
    layouts_[index(id)] = layout;
  }

  // The new value `id` in `layout`, reordered if it lies otherwise.
  ValueId in_layout(ValueId id, const Layout& layout) {
    if (!layouts_[index(id)]) set_layout(id, layout);
    if (*layouts_[index(id)] == layout) return id;
    for (const auto& [source, copy] : reorders_) {
      if (source == id && *layouts_[index(copy)] == layout) return copy;
    }
    const TensorType type = rewriter_.graph().type(id);
    const ValueId copy = rewriter_.add({.op = "reorder", .inputs = {id}}, {{.type = type}})[0];
    set_layout(copy, layout);
    reorders_.emplace_back(id, copy);
    return copy;
  }

  // One value may be the next of several states, and an output as well, each in its own layout.
  Graph finish() {
    std::vector<ValueId> nexts, outputs;
    for (const State& state : graph_.states) {
      const Layout& layout = *layouts_[index(rewriter_[state.value])];
      nexts.push_back(state.next == kNoValue ? kNoValue : in_layout(rewriter_[state.next], layout));
    }
    for (const Output& output : graph_.outputs) {
      outputs.push_back(in_layout(rewriter_[output.value], Layout()));
    }
    Graph graph = rewriter_.finish();
    for (std::size_t i = 0; i < nexts.size(); ++i) graph.states[i].next = nexts[i];
    for (std::size_t i = 0; i < outputs.size(); ++i) graph.outputs[i].value = outputs[i];
    return graph;
  }

  void visit(const Node& old_node) {
    std::vector<std::optional<Layout>> given;
    for (const ValueId input : old_node.inputs) given.push_back(layouts_[index(rewriter_[input])]);
    const NodeLayouts wish = oracle_(graph_, old_node, given);
    CONCORD_CHECK(wish.inputs.size() == old_node.inputs.size() &&
                      wish.outputs.size() == old_node.outputs.size(),
                  "layouts of {}", old_node.op);
    Node node = old_node;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      node.inputs[i] = in_layout(rewriter_[old_node.inputs[i]], wish.inputs[i]);
    }
    append(old_node, std::move(node), wish.outputs);
  }

  void visit_leaf_sum(const Node& old_node) {
    Node node = old_node;
    node.inputs[0] = rewriter_[old_node.inputs[0]];
    Layout layout = layouts_[index(node.inputs[0])].value_or(Layout());
    if (pinned_.leaf_sums) {
      CONCORD_CHECK(leaf_sums_ < pinned_.leaf_sums->size());
      layout = (*pinned_.leaf_sums)[leaf_sums_++];
    }
    node.inputs[0] = in_layout(node.inputs[0], layout);
    append(old_node, std::move(node), {layout});
  }

  void append(const Node& old_node, Node node, const std::vector<Layout>& layouts) {
    std::vector<Value> outputs;
    for (const ValueId output : old_node.outputs) outputs.push_back(graph_.value(output));
    const std::vector<ValueId> ids = rewriter_.add(std::move(node), outputs);
    for (std::size_t o = 0; o < ids.size(); ++o) {
      set_layout(ids[o], layouts[o]);
      rewriter_.map(old_node.outputs[o], ids[o]);
    }
  }

  const Graph& graph_;
  const LayoutOracle& oracle_;
  const PinnedLayouts& pinned_;
  Rewriter rewriter_;
  std::vector<std::optional<Layout>> layouts_;  // by new value; nullopt: a state's, still free
  std::vector<std::pair<ValueId, ValueId>> reorders_;
  std::size_t leaf_sums_ = 0;
};

}  // namespace

Graph assign_layouts(const Graph& graph, const LayoutOracle& oracle, const PinnedLayouts& pinned) {
  return LayoutAssignment(graph, oracle, pinned).run();
}

}  // namespace concord

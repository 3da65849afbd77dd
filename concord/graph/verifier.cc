#include "concord/graph/verifier.h"

#include <algorithm>
#include <set>

#include "concord/base/error.h"
#include "concord/graph/op.h"

namespace concord {
namespace {

class Verifier {
 public:
  explicit Verifier(const Graph& graph) : graph_(graph), defined_(graph.values.size(), false) {}

  void run() {
    for (const Input& input : graph_.inputs) define(input.value, "an input");
    for (const State& state : graph_.states) define(state.value, "a state");
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) check_node(static_cast<NodeId>(i));
    for (std::size_t i = 0; i < defined_.size(); ++i) {
      if (!defined_[i]) fail("value %{} has no origin", i);
    }
    check_names();
    check_phases();
  }

 private:
  std::string describe(const Node& node) const {
    return node.name.empty() ? node.op : fmt::format("{} ({})", node.op, node.name);
  }
  std::string describe(ValueId id) const {
    const std::string& name = graph_.value(id).name;
    return name.empty() ? fmt::format("value %{}", id) : fmt::format("\"{}\" (%{})", name, id);
  }

  void check_id(ValueId id, std::string_view user) const {
    if (id < 0 || static_cast<std::size_t>(id) >= graph_.values.size()) {
      fail("{} names value %{}, which does not exist", user, id);
    }
  }

  void define(ValueId id, std::string_view origin) {
    check_id(id, origin);
    if (defined_[static_cast<std::size_t>(id)])
      fail("value %{} has two origins, one {}", id, origin);
    defined_[static_cast<std::size_t>(id)] = true;
  }

  void check_node(NodeId id) {
    const Node& node = graph_.node(id);
    std::vector<TensorType> inputs;
    for (const ValueId input : node.inputs) {
      check_id(input, describe(node));
      if (!defined_[static_cast<std::size_t>(input)]) {
        fail("{} reads value %{} before it is computed", describe(node), input);
      }
      inputs.push_back(graph_.type(input));
    }
    const std::vector<TensorType> expected = find_op(node.op).infer(node, inputs);
    if (expected.size() != node.outputs.size()) {
      fail("{} has {} outputs; its shape rule gives {}", describe(node), node.outputs.size(),
           expected.size());
    }
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const ValueId output = node.outputs[i];
      define(output, describe(node));
      if (graph_.value(output).producer != id) fail("value %{} does not name its producer", output);
      if (graph_.type(output) != expected[i]) {
        fail("output {} of {} is {}; its shape rule gives {}", i, describe(node),
             to_string(graph_.type(output)), to_string(expected[i]));
      }
    }
  }

  void check_names() const {
    std::set<std::string> inputs, outputs;
    const auto unique = [](std::set<std::string>& seen, const std::string& name) {
      if (name.empty()) fail("an input, state or output has no name");
      if (!seen.insert(name).second) fail("the name \"{}\" is used twice", name);
    };
    for (const Input& input : graph_.inputs) unique(inputs, graph_.value(input.value).name);
    for (const State& state : graph_.states) unique(inputs, graph_.value(state.value).name);
    for (const Output& output : graph_.outputs) unique(outputs, output.name);
  }

  void check_phases() {
    phase_ = phases(graph_);
    for (const Node& node : graph_.nodes) has_leaf_sum_ = has_leaf_sum_ || node.op == "leaf_sum";
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      if (phase_[i] == Phase::kUpdate) check_update(graph_.nodes[i]);
    }
    for (const State& state : graph_.states) {
      if (state.next != kNoValue) check_next(state);
    }
    for (const Output& output : graph_.outputs) {
      check_id(output.value, output.name);
      if (has_leaf_sum_ && is_of_one_microbatch(output.value)) {
        fail(
            "output \"{}\" is {}, which belongs to a single microbatch of a graph with leaves; put "
            "a leaf_sum before it",
            output.name, describe(output.value));
      }
    }
  }

  bool is_batch_input(ValueId id) const {
    return std::ranges::any_of(graph_.inputs, [&](const Input& input) {
      return input.value == id && input.kind == Input::Kind::kBatch;
    });
  }
  bool is_of_one_microbatch(ValueId id) const {
    const NodeId producer = graph_.value(id).producer;
    if (producer == kNoNode) return is_batch_input(id);
    return phase_[static_cast<std::size_t>(producer)] == Phase::kMicrobatch;
  }

  void check_update(const Node& node) const {
    if (node.op == "leaf_sum") {
      const ValueId input = node.inputs[0];
      if (graph_.value(input).producer != kNoNode && is_of_one_microbatch(input)) return;
      fail("{} reads {}; it sums what nodes compute from batch inputs", describe(node),
           describe(input));
    }
    for (const ValueId input : node.inputs) {
      if (is_of_one_microbatch(input)) {
        fail(
            "{} is computed after the leaves but reads {} of a single microbatch; put a leaf_sum "
            "between them",
            describe(node), describe(input));
      }
    }
  }

  void check_next(const State& state) const {
    const std::string& name = graph_.value(state.value).name;
    check_id(state.next, name);
    const Value &now = graph_.value(state.value), &next = graph_.value(state.next);
    if (next.type != now.type || next.layout != now.layout) {
      fail("state \"{}\" is {} in layout {}; its next value, {}, is {} in layout {}", name,
           to_string(now.type), to_string(now.layout), describe(state.next), to_string(next.type),
           to_string(next.layout));
    }
    if (is_of_one_microbatch(state.next)) {
      fail(
          "the next value of state \"{}\" is {}, which belongs to a single microbatch; put a "
          "leaf_sum before it",
          name, describe(state.next));
    }
  }

  const Graph& graph_;
  std::vector<bool> defined_;
  std::vector<Phase> phase_;  // by node
  bool has_leaf_sum_ = false;
};

}  // namespace

void verify(const Graph& graph) { Verifier(graph).run(); }

}  // namespace concord

#include "concord/passes/rewrite.h"

#include "concord/base/error.h"

namespace concord {

Rewriter::Rewriter(const Graph& source) : source_(source), map_(source.values.size(), kNoValue) {
  const auto copy_value = [&](ValueId old_value) {
    result_.values.push_back(source.value(old_value));
    map(old_value, static_cast<ValueId>(result_.values.size() - 1));
    return map_[static_cast<std::size_t>(old_value)];
  };
  for (Input input : source.inputs) {
    input.value = copy_value(input.value);
    result_.inputs.push_back(input);
  }
  for (State state : source.states) {
    state.value = copy_value(state.value);
    result_.states.push_back(state);  // `next` is mapped by finish()
  }
}

ValueId Rewriter::operator[](ValueId old_value) const {
  CONCORD_CHECK(has(old_value), "value %{} was dropped", old_value);
  return map_[static_cast<std::size_t>(old_value)];
}

void Rewriter::map(ValueId old_value, ValueId new_value) {
  map_[static_cast<std::size_t>(old_value)] = new_value;
}

void Rewriter::copy(const Node& old_node) {
  Node node = old_node;
  for (ValueId& input : node.inputs) input = (*this)[input];
  std::vector<Value> outputs;
  for (const ValueId output : old_node.outputs) outputs.push_back(source_.value(output));
  const std::vector<ValueId> ids = add(std::move(node), outputs);
  for (std::size_t o = 0; o < ids.size(); ++o) map(old_node.outputs[o], ids[o]);
}

std::vector<ValueId> Rewriter::add(Node node, const std::vector<Value>& outputs) {
  node.outputs.clear();
  for (Value value : outputs) {
    value.producer = static_cast<NodeId>(result_.nodes.size());
    result_.values.push_back(std::move(value));
    node.outputs.push_back(static_cast<ValueId>(result_.values.size() - 1));
  }
  result_.nodes.push_back(std::move(node));
  return result_.nodes.back().outputs;
}

Graph Rewriter::finish() {
  for (State& state : result_.states) {
    if (state.next != kNoValue) state.next = (*this)[state.next];
  }
  for (Output output : source_.outputs) {
    output.value = (*this)[output.value];
    result_.outputs.push_back(std::move(output));
  }
  return std::move(result_);
}

}  // namespace concord

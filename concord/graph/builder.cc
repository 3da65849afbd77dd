#include "concord/graph/builder.h"

#include "concord/base/error.h"
#include "concord/graph/op.h"

namespace concord {

GraphBuilder::Scope::Scope(GraphBuilder& builder, std::string_view name)
    : builder_(builder), previous_length_(builder.scope_.size()) {
  if (!builder.scope_.empty()) builder.scope_ += '.';
  builder.scope_ += name;
}

GraphBuilder::Scope::~Scope() { builder_.scope_.resize(previous_length_); }

std::string GraphBuilder::qualified(std::string_view name) const {
  return scope_.empty() ? std::string(name) : fmt::format("{}.{}", scope_, name);
}

ValueId GraphBuilder::add_value(TensorType type, std::string name, NodeId producer) {
  graph_.values.push_back({std::move(type), Layout(), std::move(name), producer});
  return static_cast<ValueId>(graph_.values.size() - 1);
}

ValueId GraphBuilder::input(std::string name, TensorType type, Input::Kind kind) {
  const ValueId id = add_value(std::move(type), std::move(name), kNoNode);
  graph_.inputs.push_back({id, kind});
  return id;
}

ValueId GraphBuilder::state(std::string_view name, TensorType type, State::Role role,
                            Initializer initializer, bool decay) {
  std::string full = qualified(name);
  if (graph_.find_state(full) != kNoValue) {
    fail("there are two states named \"{}\"; give each layer a name of its own", full);
  }
  const ValueId id = add_value(std::move(type), std::move(full), kNoNode);
  graph_.states.push_back({id, kNoValue, role, initializer, decay, {}});
  return id;
}

void GraphBuilder::set_next(ValueId state, ValueId next) {
  for (State& entry : graph_.states) {
    if (entry.value != state) continue;
    CONCORD_CHECK(graph_.type(state) == graph_.type(next), "state \"{}\"",
                  graph_.value(state).name);
    entry.next = next;
    return;
  }
  CONCORD_CHECK(false, "value {} is not a state", state);
}

void GraphBuilder::output(std::string name, ValueId value) {
  graph_.outputs.push_back({std::move(name), value});
}

std::vector<ValueId> GraphBuilder::node(std::string_view op, std::vector<ValueId> inputs,
                                        Attributes attributes) {
  std::vector<TensorType> input_types;
  input_types.reserve(inputs.size());
  for (const ValueId id : inputs) {
    CONCORD_CHECK(id >= 0 && static_cast<std::size_t>(id) < graph_.values.size(), "{}: input {}",
                  op, id);
    input_types.push_back(graph_.type(id));
  }
  Node node{std::string(op), std::move(inputs), {}, std::move(attributes), scope_};
  std::vector<TensorType> output_types;
  try {
    output_types = find_op(op).infer(node, input_types);
  } catch (const Error& error) {
    if (scope_.empty()) fail("{}: {}", op, error.what());
    fail("layer {} ({}): {}", scope_, op, error.what());
  }
  const auto id = static_cast<NodeId>(graph_.nodes.size());
  for (TensorType& type : output_types) node.outputs.push_back(add_value(std::move(type), "", id));
  graph_.nodes.push_back(std::move(node));
  return graph_.nodes.back().outputs;
}

ValueId GraphBuilder::node1(std::string_view op, std::vector<ValueId> inputs,
                            Attributes attributes) {
  const std::vector<ValueId> outputs = node(op, std::move(inputs), std::move(attributes));
  CONCORD_CHECK(outputs.size() == 1, "{} has {} outputs", op, outputs.size());
  return outputs[0];
}

}  // namespace concord

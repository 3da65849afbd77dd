#include "concord/parallel/separate.h"

#include "concord/base/error.h"
#include "concord/graph/builder.h"
#include "concord/graph/op.h"

namespace concord::parallel {

Graph separate(const Graph& graph, bool sums_too) {
  Graph result;
  result.inputs = graph.inputs;
  result.states = graph.states;
  std::vector<ValueId> map(graph.values.size(), kNoValue);
  const auto now = [&](ValueId id) -> ValueId& { return map[static_cast<std::size_t>(id)]; };
  const auto carry = [&](ValueId& id) {
    result.values.push_back(graph.value(id));
    id = now(id) = static_cast<ValueId>(result.values.size() - 1);
  };
  for (Input& input : result.inputs) carry(input.value);
  for (State& state : result.states) carry(state.value);
  GraphBuilder builder(result);
  for (Node node : graph.nodes) {
    const Op& op = find_op(node.op);
    builder.set_scope_name(node.name);
    for (ValueId& input : node.inputs) input = now(input);
    const bool is_apart = op.separate != nullptr && (sums_too || node.op != "sum_of_squares");
    const std::vector<ValueId> outputs =
        is_apart ? op.separate(builder, node) : builder.node(node.op, node.inputs, node.attributes);
    CONCORD_CHECK(outputs.size() == node.outputs.size());
    for (std::size_t o = 0; o < outputs.size(); ++o) now(node.outputs[o]) = outputs[o];
  }
  for (State& state : result.states) {
    if (state.next != kNoValue) state.next = now(state.next);
  }
  for (const Output& output : graph.outputs) {
    result.outputs.push_back({output.name, now(output.value)});
  }
  return result;
}

}  // namespace concord::parallel

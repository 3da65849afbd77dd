#include "concord/passes/keep_old_states.h"

#include <set>

#include "concord/passes/rewrite.h"

namespace concord {

Graph keep_old_states(const Graph& graph) {
  std::set<ValueId> wanted;
  for (const Output& output : graph.outputs) wanted.insert(output.value);
  for (const State& state : graph.states) {
    if (state.next != state.value) wanted.insert(state.next);
  }
  Rewriter rewriter(graph);
  for (const Node& node : graph.nodes) rewriter.copy(node);
  for (const State& state : graph.states) {
    const bool changes = state.next != kNoValue && state.next != state.value;
    if (!changes || !wanted.contains(state.value)) continue;
    const TensorType& type = graph.type(state.value);
    const Node copy{.op = "reshape",
                    .inputs = {rewriter[state.value]},
                    .outputs = {},
                    .attributes = {{"shape", type.shape.dims()}},
                    .name = graph.value(state.value).name};
    rewriter.map(state.value, rewriter.add(copy, {{.type = type}})[0]);
  }
  return rewriter.finish();
}

}  // namespace concord

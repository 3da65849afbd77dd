#include "concord/passes/dead_code.h"

#include "concord/passes/rewrite.h"

namespace concord {

Graph remove_dead_code(const Graph& graph) {
  std::vector<bool> used(graph.values.size(), false);
  const auto use = [&](ValueId id) { used[static_cast<std::size_t>(id)] = true; };
  for (const Output& output : graph.outputs) use(output.value);
  for (const State& state : graph.states) {
    if (state.next != kNoValue) use(state.next);
  }
  std::vector<bool> live(graph.nodes.size(), false);
  for (std::size_t i = graph.nodes.size(); i-- > 0;) {
    for (const ValueId output : graph.nodes[i].outputs) {
      live[i] = live[i] || used[static_cast<std::size_t>(output)];
    }
    if (!live[i]) continue;
    for (const ValueId input : graph.nodes[i].inputs) use(input);
  }
  Rewriter rewriter(graph);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    if (live[i]) rewriter.copy(graph.nodes[i]);
  }
  return rewriter.finish();
}

}  // namespace concord

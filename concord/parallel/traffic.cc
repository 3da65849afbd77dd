#include "concord/parallel/traffic.h"

#include "concord/ops/collective.h"

namespace concord::parallel {
std::vector<Traffic> traffic_of(const Graph& graph) {
  const std::vector<Phase> phase = phases(graph);
  std::vector<Traffic> traffic;
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    if (!ops::is_collective(node.op) && node.op != ops::kSend) continue;
    traffic.push_back({.op = node.op,
                       .axis = node.attributes.text("axis"),
                       .layer = node.name,
                       .phase = phase[n],
                       .bytes = ops::bytes_sent(graph, node),
                       .node = static_cast<NodeId>(n),
                       .is_of_leaf_sum = ops::is_of_leaf_sum(graph, node)});
  }
  return traffic;
}

}  // namespace concord::parallel

#include "concord/parallel/traffic.h"

#include "concord/ops/collective.h"

namespace concord::parallel {

std::vector<Traffic> traffic_of(const Graph& graph) {
  const std::vector<Phase> phase = phases(graph);
  std::vector<Traffic> traffic;
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    if (!ops::is_collective(node.op)) continue;
    traffic.push_back(
        {node.op, node.attributes.text("axis"), node.name, phase[n], ops::bytes_sent(graph, node)});
  }
  return traffic;
}

}  // namespace concord::parallel

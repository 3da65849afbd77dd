#include "concord/passes/pass.h"

#include "concord/base/clock.h"
#include "concord/base/error.h"
#include "concord/graph/verifier.h"

namespace concord {

Graph run_passes(Graph graph, const std::vector<Pass>& passes, std::vector<PassRecord>* records) {
  verify(graph);
  for (const Pass& pass : passes) {
    PassRecord record{.name = pass.name, .nodes_before = graph.nodes.size()};
    const double start = now_seconds();
    graph = pass.run(std::move(graph));
    record.seconds = now_seconds() - start;
    record.nodes_after = graph.nodes.size();
    try {
      verify(graph);
    } catch (const Error& error) {
      fail("pass \"{}\" left a graph that is not well formed: {}", pass.name, error.what());
    }
    if (records != nullptr) records->push_back(record);
  }
  return graph;
}

}  // namespace concord

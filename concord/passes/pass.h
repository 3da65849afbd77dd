// The pass runner. A pass is a named Graph -> Graph transform; the runner times each one and
// verifies the graph after it, so that a wrong pass is named at once.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "concord/graph/graph.h"

namespace concord {

struct Pass {
  std::string name;
  std::function<Graph(Graph)> run;
};

struct PassRecord {
  std::string name;
  double seconds = 0;
  std::size_t nodes_before = 0;
  std::size_t nodes_after = 0;
};

// Runs the passes in order. Throws Error naming the pass after which the graph is not well formed.
// Appends one record for each pass to `records` unless it is null.
Graph run_passes(Graph graph, const std::vector<Pass>& passes,
                 std::vector<PassRecord>* records = nullptr);

}  // namespace concord

// Stages: along "pipe" the layers of a model are dealt out over the ranks, in order.
//
// Vocabulary. The *forward pass* is what the loss of a microbatch is computed from, node after
// node; a *cut point* lies between two of its nodes where a single value leads from those before to
// those behind. S - 1 of them make S *stages*. The backward pass of a stage is what belongs to the
// same layers; it comes in the opposite order, so that every value leads from an earlier place to a
// later one on the line
//
//   forward 0, forward 1, ..., forward S-1, backward S-1, ..., backward 0.
//
// A rank has one stage, or several (schedule.h, chunks), and computes a microbatch in *halves*, one
// for each place it has on that line: Node::half counts them in the order of the line. What leads
// from a rank's half to another's is sent (ops/collective.h, kSend). A state is on the ranks that
// read it; where these are several, such as of a weight that two layers share, the one that updates
// it sends it to the others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "concord/graph/graph.h"
#include "concord/parallel/plan.h"

namespace concord::parallel {

// By what stages are balanced.
struct StageTimer {
  // How long each of these nodes of a graph takes, in seconds; where that is not known, and where
  // `measure` is null, it is counted (MachineCost).
  std::function<std::vector<std::optional<double>>(const Graph&, std::span<const std::size_t>)>
      measure;
  std::string machine;  // what that depends on, beside the nodes
  // What was decided so far, by all that it depends on; new decisions are added.
  std::map<std::string, std::string, std::less<>>* decisions = nullptr;
};

// Decides where a model is cut, if its first graph has not done so: so that the stage that costs
// most costs least (exactly, over all cut points). Ranks with the same decisions decide alike.
// Returns the values that lead from stage to stage; none where there is one stage. `graph`: with
// layouts. Throws Error where there are more stages than cut points allow, and for a decision that
// makes no sense.
std::vector<ValueId> decide_cuts(const Graph& graph, Plan& plan, const StageTimer& timer = {});

// The graph of one rank. The first graph of a model decides plan.stages, the others follow it.
// Throws as decide_cuts does, where nothing was decided.
Graph cut_into_stages(const Graph& graph, Plan& plan, int rank, const StageTimer& timer = {});

// Of a rank's halves: which they are, in their order.
std::vector<std::pair<Half, int>> halves_of(const Plan& plan);  // with the chunk
int half_index(const Plan& plan, Half half, int chunk);

}  // namespace concord::parallel

// StageAssignment: which stage each node of a graph belongs to (stages.h), chosen by cost.
#pragma once

#include <vector>

#include "concord/graph/graph.h"
#include "concord/parallel/plan.h"
#include "concord/parallel/stages.h"

namespace concord::parallel {

struct StageAssignment {
  static constexpr int kAnywhere = -1;  // made wherever it is read
  static constexpr int kPartial = -2;   // a summand on every rank

  Pipeline pipeline;
  // By node.
  std::vector<Phase> phase;
  // Of a microbatch's node: its place on the line of stages, or kAnywhere. Of an update's node: its
  // stage, kAnywhere or kPartial.
  std::vector<int> place;
  std::vector<int> half;
  // Of what reads no weight: it is computed once on each rank that reads it. What reads weights
  // alone is computed anew for each half.
  std::vector<bool> reads_data;

  int stage_at(int place_on_line) const {
    const int stages = pipeline.stages();
    return place_on_line < stages ? place_on_line : 2 * stages - 1 - place_on_line;
  }
  int rank_of_stage(int stage) const { return place_of(pipeline, stage).first; }
};

// The first graph of a model decides plan.stages and what belongs to them, the others follow it.
// Throws Error as decide_cuts does, and for an update that reads what two stages make.
StageAssignment assign_stages(const Graph& graph, Plan& plan, const StageTimer& timer);

// Sums of squares, exact or rounded.
bool is_sum_of_squares(const Node& node);

}  // namespace concord::parallel

// Simulator: how long a step of a job would take, whose ranks need not be there. The programs of
// its ranks are compiled as they would be run and interpreted on a virtual clock
// (runtime/simulation.h); what their ops cost is measured on this machine, once for each kind of
// op, and what their collectives cost, where a host of the job has as many ranks as this machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "concord/comm/communicator.h"
#include "concord/parallel/cluster.h"
#include "concord/runtime/simulation.h"
#include "concord/train/config.h"

namespace concord::train {

struct SimulationOptions {
  int ranks = 1;  // of the job
  // Null: all are on this machine.
  const parallel::Cluster* cluster = nullptr;
  // Those of this machine who measure together, as many as a host of the job has, or as there is
  // room for; null: this process alone.
  comm::Communicator* local = nullptr;
  int runs = 5;  // of each op that is measured
  // Also takes so many steps with options.local, who have to be all ranks of the job, in turns with
  // what is measured: a check of what is foreseen.
  bool checked = false;
  bool traced = false;
};

// Ranks that do the same at the same time.
struct SimulatedRanks {
  int first = 0;  // their smallest number
  std::int64_t ranks = 1;
  double compute_seconds = 0, waited_seconds = 0;  // of a step
};

struct SimulatedJob {
  int ranks = 1;
  std::int64_t batch = 0;
  double step_seconds = 0;  // the median, where several runs are simulated
  std::vector<SimulatedRanks> of_ranks;
  double measured_step_seconds = 0;  // where it was checked: the median,
  // and that of what a run is simulated to take over the step measured in it, less 1: a machine's
  // speed may change from run to run.
  double error = 0;
  std::size_t measured_ops = 0;   // kinds
  double measuring_seconds = 0;   // the time that took
  double simulating_seconds = 0;  // and the rest, compiling included
  JobTrace trace;                 // by entry of of_ranks
};

// Collective among options.local, where the first has the result. Throws Error for what open_job
// refuses, and where the cluster has too few ranks or lacks a link.
SimulatedJob simulate_job(const Config& config, const SimulationOptions& options);

// How many ranks of this machine measure for a job on this cluster (null: on this machine), each
// with this many compute threads (0: its share of the cores).
int measuring_ranks(const parallel::Cluster* cluster, int ranks, int threads);

}  // namespace concord::train

// Who started this process as one rank of many, as the environment tells it.
//
// Open MPI: OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE, OMPI_COMM_WORLD_LOCAL_SIZE,
// PMIX_NAMESPACE. Slurm: SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_STEP_NUM_NODES, SLURM_JOB_ID,
// SLURM_STEP_ID. MPICH: PMI_RANK, PMI_SIZE, MPI_LOCALNRANKS (its launcher, Hydra, sets them).
// torchrun: RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT.
//
// A Slurm allocation alone (a batch script, salloc's shell) makes no ranks: srun does.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "concord/net/socket.h"

namespace concord::net {

// Whose ranks are heard by Concord itself (console.h).
constexpr const char* kOwnLauncher = "concord launch";

struct Placement {
  std::string launcher;  // "Open MPI"
  int rank = 0;
  int size = 1;
  bool one_host = false;          // all ranks run on this machine
  std::string job;                // a name that all ranks of it have, and no other job; "" unknown
  std::optional<Endpoint> store;  // where rank 0 is to hold the rendezvous store, if that is given
};

// A variable's value; nullopt where it is not set.
using Variables = std::function<std::optional<std::string>(const char* name)>;
std::optional<std::string> environment_variable(const char* name);

// nullopt where this process is alone: nobody has started it as a rank, or as the only one. Throws
// Error for variables that make no sense, and where two launchers contradict each other.
std::optional<Placement> find_placement(const Variables& variables = environment_variable);

// For whoever is about to start ranks: throws Error where this process is one of many already.
void check_alone();

}  // namespace concord::net

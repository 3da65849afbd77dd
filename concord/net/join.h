// How a process becomes a rank of its job: it finds out who has started it (environment.h), meets
// the others at the rendezvous store, and learns which machines they run on.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "concord/net/secret.h"
#include "concord/net/store.h"

namespace concord::net {

struct Membership {
  int rank = 0;
  int size = 1;
  std::string launcher;            // "concord launch", "Open MPI", "Slurm", ...
  std::vector<std::string> hosts;  // names of the machines, by rank
  std::vector<int> host_numbers;   // 0, 1, ... for each machine, by rank
  Secret secret;
  std::unique_ptr<StoreServer> server;  // rank 0's, where no launcher has it
  std::unique_ptr<StoreClient> store;

  int host_count() const;
  // "4 ranks by Open MPI on 1 host"
  std::string description() const;
};

// nullopt where this process is alone. Collective otherwise: throws Error that names who has not
// come before the timeout.
//
// The launchers of others hand over neither a store nor a secret. Then rank 0 holds the store:
// where CONCORD_STORE says (or torchrun's MASTER_ADDR and MASTER_PORT), else on the loopback
// address where all ranks run on one machine, else on this machine's other addresses, of which
// those that nobody has used are closed when all have come. The secret is CONCORD_SECRET, else a
// new one that rank 0 hands over in a file (job_file.h).
std::optional<Membership> join_job(double timeout_seconds);

}  // namespace concord::net

// A transport by MPI, for processes that mpirun (or another launcher of MPI's) has started: over
// whatever connects them, as MPI chooses. MPI is loaded with the first one, and can be started once
// in a process.
//
// MPI starts only when all ranks are there, and ends only when all are through: a rank that does
// not come to the end within a minute is left behind. Where a rank is killed, mpirun kills the
// others.
#pragma once

#include <memory>

#include "concord/net/transport.h"

namespace concord::net {

std::unique_ptr<Transport> make_mpi_transport(const TransportOptions& options, StoreClient& store,
                                              Deadline deadline);

}  // namespace concord::net

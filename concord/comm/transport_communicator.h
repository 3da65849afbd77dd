// A Communicator for ranks that send each other messages (net/transport.h), on one machine or many.
#pragma once

#include <memory>

#include "concord/comm/algorithm.h"
#include "concord/comm/communicator.h"
#include "concord/net/store.h"

namespace concord::comm {

struct TransportOptions {
  int rank = 0;
  Topology topology;
  double timeout_seconds = 300;            // for each operation
  Algorithm algorithm = Algorithm::kAuto;  // for sums
  bool any_order = false;                  // of sums
};

// Collective; the ranks find each other in the store, which outlives the communicator. Throws Error
// where one of them does not come before the timeout, and for an algorithm that is not for them
// (check_algorithm).
std::unique_ptr<Communicator> join_by_transport(const TransportOptions& options,
                                                net::StoreClient& store);

}  // namespace concord::comm

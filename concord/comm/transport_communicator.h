// A Communicator for ranks that send each other messages (net/transport.h), on one machine or many.
#pragma once

#include <memory>
#include <string>

#include "concord/comm/communicator.h"
#include "concord/comm/reduction.h"
#include "concord/net/store.h"

namespace concord::comm {

struct TransportOptions {
  int rank = 0;
  int size = 1;
  double timeout_seconds = 300;  // for each operation
  std::string transport = "gloo";
  Algorithm algorithm = Algorithm::kAuto;  // for sums
};

// Collective; the ranks find each other in the store, which outlives the communicator. Throws Error
// where one of them does not come before the timeout, and for an algorithm that is not for so many.
std::unique_ptr<Communicator> join_by_transport(const TransportOptions& options,
                                                net::StoreClient& store);

}  // namespace concord::comm

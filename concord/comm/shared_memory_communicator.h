// A Communicator for ranks of one machine: they read each other's memory in place. In a sum every
// rank adds up one piece of what all have given, tile by tile, so that each byte travels through
// memory once.
#pragma once

#include <memory>
#include <string>

#include "concord/comm/communicator.h"
#include "concord/net/store.h"

namespace concord::comm {

struct SharedMemoryOptions {
  int rank = 0;
  int size = 1;
  double timeout_seconds = 300;  // for each collective call
};

// Collective; the ranks find each other in the store. Throws Error where one of them does not come
// before the timeout, or is on another machine.
std::unique_ptr<Communicator> join_by_shared_memory(const SharedMemoryOptions& options,
                                                    net::StoreClient& store);

}  // namespace concord::comm

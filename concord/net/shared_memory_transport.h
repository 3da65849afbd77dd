// A transport for ranks of one machine. From each rank to each other there is a ring of bytes in
// memory that both see; a message goes through it in chunks, so that it is written and read at the
// same time.
#pragma once

#include <memory>

#include "concord/net/transport.h"

namespace concord::net {

std::unique_ptr<Transport> make_shared_memory_transport(const TransportOptions& options,
                                                        StoreClient& store, Deadline deadline);

}  // namespace concord::net

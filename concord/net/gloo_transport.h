// A transport over TCP, by Gloo (https://github.com/facebookincubator/gloo). Messages move in a
// thread of Gloo's own.
//
// Each rank listens at one address of its machine until the others have connected, and tells them
// by the store where. The first thing that comes through a connection is what the one who listens
// has told the other in the store, which only those see who know the job's secret; nothing else is
// encrypted or signed: the network between the hosts of a job is trusted.
#pragma once

#include <memory>

#include "concord/net/transport.h"

namespace concord::net {

std::unique_ptr<Transport> make_gloo_transport(const TransportOptions& options, StoreClient& store,
                                               Deadline deadline);

}  // namespace concord::net

// How the two ends of a new connection prove to each other that they belong to the same job
// (secret.h):
//
//   server -> client   "CONCORD1", nonce
//   client -> server   nonce, proof
//   server -> client   proof
#pragma once

#include <string_view>

#include "concord/base/deadline.h"
#include "concord/net/secret.h"
#include "concord/net/socket.h"

namespace concord::net {

constexpr std::string_view kGreeting = "CONCORD1";

// Both throw Error where the other end does not know the secret, or says nothing before the
// deadline. `server`: what the other end is, for messages ("the rendezvous store at ...").
void introduce_to_server(const Socket& socket, const Secret& secret, std::string_view server,
                         Deadline deadline);
void introduce_to_client(const Socket& socket, const Secret& secret, Deadline deadline);

}  // namespace concord::net

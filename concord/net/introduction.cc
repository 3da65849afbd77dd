#include "concord/net/introduction.h"

#include <algorithm>
#include <array>

#include "concord/base/error.h"

namespace concord::net {
namespace {

using Role = Challenge::Role;
using Greeting = std::array<std::byte, kGreeting.size()>;

std::span<const std::byte> greeting_bytes() {
  return std::as_bytes(std::span(kGreeting.data(), kGreeting.size()));
}

}  // namespace

void introduce_to_server(const Socket& socket, const Secret& secret, std::string_view server,
                         Deadline deadline) {
  Greeting greeting;
  Challenge challenge{.client = Challenge::random_nonce()};
  receive_all(socket, greeting, deadline);
  if (!std::ranges::equal(greeting, greeting_bytes())) {
    fail("{} does not answer as this version of Concord does", server);
  }
  receive_all(socket, challenge.server, deadline);
  Challenge::Proof proof = challenge.proof(secret, Role::kClient);
  send_all(socket, challenge.client, deadline);
  send_all(socket, proof, deadline);
  try {
    receive_all(socket, proof, deadline);
  } catch (const Error& error) {
    fail("{} did not accept this job's secret ({})", server, error.what());
  }
  if (!challenge.proves(secret, Role::kServer, proof)) {
    fail("{} does not know this job's secret: it belongs to another job", server);
  }
}

void introduce_to_client(const Socket& socket, const Secret& secret, Deadline deadline) {
  Challenge challenge{.server = Challenge::random_nonce()};
  Challenge::Proof proof;
  send_all(socket, greeting_bytes(), deadline);
  send_all(socket, challenge.server, deadline);
  receive_all(socket, challenge.client, deadline);
  receive_all(socket, proof, deadline);
  if (!challenge.proves(secret, Role::kClient, proof)) {
    fail("{} does not know the secret of this job", to_string(remote_endpoint(socket)));
  }
  send_all(socket, challenge.proof(secret, Role::kServer), deadline);
}

}  // namespace concord::net

// TCP connections for the few bytes by which ranks find each other. Gradients travel through
// transports (transport.h).
//
// Every wait has a deadline. Errors name the other end and what the system said. A socket is used
// by one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "concord/base/deadline.h"
#include "concord/base/descriptor.h"

namespace concord::net {

using Socket = Descriptor;

struct Endpoint {
  std::string host;  // a name or a numeric address
  std::uint16_t port = 0;
};
// "127.0.0.1:4711", "[::1]:4711"
std::string to_string(const Endpoint& endpoint);

// Numeric addresses of this machine's network interfaces that are up, without those that only it
// reaches itself (loopback) or that need an interface to be named (link-local).
std::vector<std::string> own_addresses();

// Listens on one address, never on all of them unless it is told so ("0.0.0.0", "::"). Port 0 takes
// a free one. Throws Error where the address is not this machine's or the port is taken.
Socket listen_on(const Endpoint& endpoint);
// The numeric address and port of a socket's own end, and of the other.
Endpoint local_endpoint(const Socket& socket);
Endpoint remote_endpoint(const Socket& socket);

// Tries every address of the host, again and again until the deadline: whoever listens there may
// not have begun to; or each of them once. Throws Error that says what each address answered last.
enum class Tries { kUntilDeadline, kOnce };
Socket connect_to(const Endpoint& endpoint, Deadline deadline, Tries tries = Tries::kUntilDeadline);

// All bytes, or Error: the deadline has passed, or the other end has closed.
void send_all(const Socket& socket, std::span<const std::byte> bytes, Deadline deadline);
void receive_all(const Socket& socket, std::span<std::byte> bytes, Deadline deadline);

}  // namespace concord::net

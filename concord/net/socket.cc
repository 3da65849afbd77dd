#include "concord/net/socket.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "concord/base/error.h"

namespace concord::net {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Addresses resolve(const Endpoint& endpoint) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found);
  if (error != 0) {
    fail("\"{}\" is no address that this machine knows: {}", endpoint.host,
         error == EAI_SYSTEM ? reason(errno) : gai_strerror(error));
  }
  return {found, &freeaddrinfo};
}

Socket open_socket(const addrinfo& address, int flags) {
  return Socket(socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
}

Endpoint endpoint_of(const sockaddr* address, socklen_t size) {
  char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "0";
  getnameinfo(address, size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  return {host, static_cast<std::uint16_t>(std::stoi(port))};
}

template <typename GetName>
Endpoint endpoint_by(GetName get_name, const Socket& socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (get_name(socket.descriptor(), generic, &size) != 0) return {"unknown", 0};
  return endpoint_of(generic, size);
}

// Whether the descriptor is ready for `events` before the deadline.
bool wait_for(const Socket& socket, short events, Deadline deadline) {
  for (;;) {
    pollfd entry{socket.descriptor(), events, 0};
    const int ready = poll(&entry, 1, deadline.milliseconds_left());
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) fail("poll failed: {}", reason(errno));
    if (deadline.has_passed()) return false;
  }
}

// One try with one address. Returns 0 or the system's error.
int try_to_connect(const Socket& socket, const addrinfo& address, Deadline deadline) {
  if (!socket.is_open()) return errno;
  if (connect(socket.descriptor(), address.ai_addr, address.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  if (!wait_for(socket, POLLOUT, deadline)) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

// Calls transfer(bytes left) until all are through; it returns what the system call did.
template <typename Byte, typename Transfer>
void transfer_all(const Socket& socket, std::span<Byte> bytes, short events, Deadline deadline,
                  Transfer transfer) {
  const auto stop = [&](const std::string& why) {
    fail("the connection to {} ended: {}", to_string(remote_endpoint(socket)), why);
  };
  while (!bytes.empty()) {
    const ssize_t done = transfer(bytes);
    if (done > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    } else if (done == 0) {
      stop("it was closed by the other end");
    } else if (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK) {
      stop(reason(errno));
    } else if (!wait_for(socket, events, deadline)) {
      stop(fmt::format("it was silent for {:.3g} s", deadline.seconds_given()));
    }
  }
}

}  // namespace

std::string to_string(const Endpoint& endpoint) {
  const bool is_v6 = endpoint.host.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", is_v6 ? "[" : "", endpoint.host, is_v6 ? "]" : "", endpoint.port);
}

std::vector<std::string> own_addresses() {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) fail("cannot list network interfaces: {}", reason(errno));
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> list(first, &freeifaddrs);
  std::vector<std::string> addresses;
  for (const ifaddrs* entry = list.get(); entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr) continue;
    const int family = entry->ifa_addr->sa_family;
    if ((entry->ifa_flags & IFF_UP) == 0 || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    if (family == AF_INET) {
      addresses.push_back(endpoint_of(entry->ifa_addr, sizeof(sockaddr_in)).host);
    } else if (family == AF_INET6) {
      const auto& address = *reinterpret_cast<const sockaddr_in6*>(entry->ifa_addr);
      if (IN6_IS_ADDR_LINKLOCAL(&address.sin6_addr)) continue;
      addresses.push_back(endpoint_of(entry->ifa_addr, sizeof(sockaddr_in6)).host);
    }
  }
  return addresses;
}

Socket listen_on(const Endpoint& endpoint) {
  const Addresses addresses = resolve(endpoint);
  Socket listener = open_socket(*addresses, SOCK_NONBLOCK);
  const int yes = 1;  // a port whose last connections are still closing is free
  if (!listener.is_open() ||
      setsockopt(listener.descriptor(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
      bind(listener.descriptor(), addresses->ai_addr, addresses->ai_addrlen) != 0 ||
      listen(listener.descriptor(), SOMAXCONN) != 0) {
    fail(
        "could not listen on {}: {}; give an address of this machine and a port that is free (0: "
        "any)",
        to_string(endpoint), reason(errno));
  }
  return listener;
}

Endpoint local_endpoint(const Socket& socket) { return endpoint_by(getsockname, socket); }
Endpoint remote_endpoint(const Socket& socket) { return endpoint_by(getpeername, socket); }

Socket connect_to(const Endpoint& endpoint, Deadline deadline, Tries tries) {
  const Addresses addresses = resolve(endpoint);
  for (;;) {
    std::vector<std::string> answers;
    for (const addrinfo* address = addresses.get(); address != nullptr;
         address = address->ai_next) {
      Socket socket = open_socket(*address, SOCK_NONBLOCK);
      const int error = try_to_connect(socket, *address, deadline);
      if (error == 0) {
        const int yes = 1;  // small messages leave at once
        setsockopt(socket.descriptor(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        return socket;
      }
      answers.push_back(fmt::format(
          "{}: {}", to_string(endpoint_of(address->ai_addr, address->ai_addrlen)), reason(error)));
    }
    constexpr double kPause = 0.02;
    if (tries == Tries::kOnce || deadline.seconds_left() < kPause) {
      fail("could not connect to {} within {:.3g} s ({})", to_string(endpoint),
           deadline.seconds_given(), fmt::join(answers, "; "));
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(kPause));
  }
}

void send_all(const Socket& socket, std::span<const std::byte> bytes, Deadline deadline) {
  transfer_all(socket, bytes, POLLOUT, deadline, [&](std::span<const std::byte> left) {
    return send(socket.descriptor(), left.data(), left.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  });
}

void receive_all(const Socket& socket, std::span<std::byte> bytes, Deadline deadline) {
  transfer_all(socket, bytes, POLLIN, deadline, [&](std::span<std::byte> left) {
    return recv(socket.descriptor(), left.data(), left.size(), MSG_DONTWAIT);
  });
}

}  // namespace concord::net

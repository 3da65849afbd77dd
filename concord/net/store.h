// The rendezvous store: a table of names and bytes at one place that every rank of a job knows, by
// which the ranks find each other. A server holds it; each rank is a client.
//
// Who connects proves that it knows the job's secret, and so does the server (introduction.h).
// Whoever does not is refused, and the log says from where and why. What is said afterwards is
// neither encrypted nor signed: the network between the hosts of a job is trusted with it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/deadline.h"
#include "concord/net/secret.h"
#include "concord/net/socket.h"
#include "concord/net/store_request.h"

namespace concord::net {

// Serves from a thread of its own until it is destroyed.
class StoreServer {
 public:
  // `at`: the address to listen on and a port, 0 for a free one. Throws Error (listen_on).
  StoreServer(const Secret& secret, const Endpoint& at);
  // At several places.
  StoreServer(const Secret& secret, std::span<const Endpoint> at);
  StoreServer(const StoreServer&) = delete;
  StoreServer& operator=(const StoreServer&) = delete;
  ~StoreServer();

  // Where clients reach it.
  const std::vector<Endpoint>& endpoints() const;
  const Endpoint& endpoint() const { return endpoints().front(); }
  // Listens no longer but at those of its places that `kept` names ("host:port"). Connections that
  // there are stay.
  void listen_only_at(std::vector<std::string> kept);

 private:
  class Loop;
  std::unique_ptr<Loop> loop_;
};

// A connection to the server. Thread-safe; a call that waits holds up the others. A call throws
// Error when its deadline passes or the connection ends, and the client is of no use afterwards.
class StoreClient {
 public:
  static constexpr std::size_t kLongestKey = StoreRequest::kLongestKey;      // bytes
  static constexpr std::size_t kLongestValue = StoreRequest::kLongestValue;  // bytes

  // Throws Error where nobody answers before the deadline, or the two do not share the secret.
  StoreClient(const Secret& secret, const Endpoint& server, Deadline deadline);
  // Of a store that is, or will be, at one of these places.
  StoreClient(const Secret& secret, std::span<const Endpoint> servers, Deadline deadline);

  // Whether a server that shares the secret answers there now.
  static bool is_answered(const Secret& secret, const Endpoint& server, Deadline deadline);

  void set(std::string_view key, std::string_view value, Deadline deadline);
  // Waits until somebody has set the key.
  std::string get(std::string_view key, Deadline deadline);
  // Adds to a counter that begins at 0, and returns the sum.
  std::int64_t add(std::string_view key, std::int64_t amount, Deadline deadline);

  // The numeric address and the port at which the server answered.
  const std::string& server() const { return server_; }
  // This machine's address on the way to the server: one that the server's machine reaches.
  const std::string& own_address() const { return own_address_; }

 private:
  void connect(const Secret& secret, const Endpoint& server, Deadline deadline, Tries tries);
  std::string ask(char what, std::string_view key, std::string_view value, Deadline deadline);

  std::mutex mutex_;
  Socket socket_;
  std::string server_, own_address_;
};

}  // namespace concord::net

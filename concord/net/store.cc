#include "concord/net/store.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <thread>
#include <vector>

#include "concord/base/error.h"
#include "concord/base/log.h"
#include "concord/net/introduction.h"

// A request goes with its size before it (store_request.h), and so does an answer, which is a
// value. Sizes are 4 bytes.

namespace concord::net {
namespace {

using Role = Challenge::Role;

constexpr std::size_t kNonce = sizeof(Challenge::Nonce), kProof = sizeof(Challenge::Proof);
constexpr std::size_t kLongestRequest = 5 + StoreClient::kLongestKey + StoreClient::kLongestValue;
constexpr double kHandshakeSeconds = 5;
constexpr std::size_t kMostStrangers = 512;  // connections that have proved nothing yet

template <typename T>
void append(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
T read(std::string_view bytes) {
  T value;
  CONCORD_CHECK(bytes.size() >= sizeof value);
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

// One thread that waits for all connections at once.
class StoreServer::Loop {
 public:
  Loop(const Secret& secret, std::span<const Endpoint> at)
      : secret_(secret), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!wake_.is_open()) fail("eventfd failed: {}", std::strerror(errno));
    for (const Endpoint& endpoint : at) {
      listeners_.push_back(listen_on(endpoint));
      endpoints_.push_back(local_endpoint(listeners_.back()));
    }
    thread_ = std::thread([this] { run(); });
  }
  ~Loop() {
    ends_ = true;
    wake();
    thread_.join();
  }

  const std::vector<Endpoint>& endpoints() const { return endpoints_; }

  void listen_only_at(std::vector<std::string> kept) {
    {
      const std::lock_guard lock(mutex_);
      kept_ = std::move(kept);
    }
    wake();
  }

 private:
  struct Connection {
    Socket socket;
    Endpoint from;
    Deadline handshake = Deadline::in(kHandshakeSeconds);
    Challenge challenge;
    bool is_known = false;  // has proved that it knows the secret
    std::string in, out;    // not yet understood, not yet sent
    std::string waits_for;  // the key of its get, "" for none
    bool is_done = false;
  };

  void wake() const {
    const std::uint64_t one = 1;
    CONCORD_CHECK(write(wake_.descriptor(), &one, sizeof one) == sizeof one);
  }

  // After wake(). False at the end.
  bool go_on() {
    std::uint64_t wakes = 0;
    CONCORD_CHECK(::read(wake_.descriptor(), &wakes, sizeof wakes) == sizeof wakes);
    if (ends_) return false;
    const std::lock_guard lock(mutex_);
    const auto is_kept = [&](const Socket& listener) {
      return std::ranges::count(kept_, to_string(local_endpoint(listener))) > 0;
    };
    // Of none at all something has changed their names on the way: then all stay.
    if (std::ranges::any_of(listeners_, is_kept)) std::erase_if(listeners_, std::not_fn(is_kept));
    return true;
  }

  void run() {
    for (std::vector<pollfd> entries;;) {
      entries.assign({{wake_.descriptor(), POLLIN, 0}});
      for (const Socket& listener : listeners_)
        entries.push_back({listener.descriptor(), POLLIN, 0});
      Deadline next = Deadline::never();
      for (const Connection& c : connections_) {
        const bool writes = !c.out.empty();
        entries.push_back(
            {c.socket.descriptor(), static_cast<short>(POLLIN | (writes ? POLLOUT : 0)), 0});
        if (!c.is_known && c.handshake.seconds_left() < next.seconds_left()) next = c.handshake;
      }
      if (poll(entries.data(), entries.size(), next.milliseconds_left()) < 0 && errno != EINTR) {
        log("the rendezvous store ends: poll failed: {}", std::strerror(errno));
        return;
      }
      auto entry = entries.begin() + 1 + std::ssize(listeners_);
      for (Connection& c : connections_) {
        if (entry->revents & (POLLIN | POLLHUP | POLLERR)) receive(c);
        if (!c.out.empty()) send_out(c);
        if (!c.is_known && c.handshake.has_passed()) refuse(c, "it did not introduce itself");
        ++entry;
      }
      connections_.remove_if([](const Connection& c) { return c.is_done; });
      for (std::size_t i = 0; i < listeners_.size(); ++i) {
        if (entries[1 + i].revents != 0) accept_one(listeners_[i]);
      }
      if (entries[0].revents != 0 && !go_on()) return;
    }
  }

  void accept_one(const Socket& listener) {
    Socket socket(accept4(listener.descriptor(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.is_open()) {
      if ((errno == EMFILE || errno == ENFILE) && !std::exchange(is_full_, true)) {
        log("the rendezvous store at {} cannot let in another rank: {}; raise the limit (ulimit "
            "-n)",
            to_string(endpoints_.front()), std::strerror(errno));
      }
      // The one that waits makes poll return at once.
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      return;
    }
    Connection c{.socket = std::move(socket)};
    c.from = remote_endpoint(c.socket);
    const auto strangers = std::ranges::count(connections_, false, &Connection::is_known);
    if (static_cast<std::size_t>(strangers) >= kMostStrangers) {
      return refuse(c, "too many others have not introduced themselves yet");
    }
    c.challenge.server = Challenge::random_nonce();
    c.out = kGreeting;
    append(c.out, c.challenge.server);
    connections_.push_back(std::move(c));
    send_out(connections_.back());
  }

  void refuse(Connection& c, std::string_view why) {
    log("the rendezvous store at {} refused {}: {}", to_string(endpoints_.front()),
        to_string(c.from), why);
    c.is_done = true;
  }

  void receive(Connection& c) {
    char buffer[1 << 16];
    const ssize_t size = recv(c.socket.descriptor(), buffer, sizeof buffer, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) {
      c.is_known ? void(c.is_done = true) : refuse(c, "it left without a proof of the secret");
      return;
    }
    c.in.append(buffer, static_cast<std::size_t>(size));
    if (!c.is_known && c.in.size() >= kNonce + kProof) check_proof(c);
    while (c.is_known && !c.is_done && answer_next(c)) {
    }
  }

  void check_proof(Connection& c) {
    std::memcpy(c.challenge.client.data(), c.in.data(), kNonce);
    const auto proof = bytes_of(std::string_view(c.in).substr(kNonce, kProof)).first<kProof>();
    if (!c.challenge.proves(secret_, Role::kClient, proof)) {
      return refuse(c, "it does not know the secret of this job");
    }
    c.is_known = true;
    c.in.erase(0, kNonce + kProof);
    append(c.out, c.challenge.proof(secret_, Role::kServer));
  }

  // False where no whole request has come.
  bool answer_next(Connection& c) {
    if (c.in.size() < 4) return false;
    const auto size = read<std::uint32_t>(c.in);
    if (size > kLongestRequest) {
      refuse(c, "it sent no request of this store");
      return false;
    }
    if (c.in.size() - 4 < size) return false;
    const std::optional<StoreRequest> request =
        StoreRequest::of(std::string_view(c.in).substr(4, size));
    if (!request || !c.waits_for.empty()) {
      refuse(c, "it sent no request of this store");
      return false;
    }
    answer(c, *request);
    c.in.erase(0, 4 + size);
    return true;
  }

  void answer(Connection& c, const StoreRequest& request) {
    const std::string key(request.key);
    if (request.what == 'g') {
      const auto found = values_.find(key);
      if (found == values_.end()) {
        c.waits_for = key;
      } else {
        reply(c, found->second);
      }
    } else if (request.what == 's') {
      const std::string& value = values_[key] = request.value;
      reply(c, "");
      for (Connection& other : connections_) {
        if (other.waits_for != key) continue;
        other.waits_for.clear();
        reply(other, value);
        send_out(other);
      }
    } else {
      std::int64_t& count = counts_[key];
      const auto amount = read<std::int64_t>(request.value);
      count = static_cast<std::int64_t>(static_cast<std::uint64_t>(count) +
                                        static_cast<std::uint64_t>(amount));
      std::string sum;
      append(sum, count);
      reply(c, sum);
    }
  }

  static void reply(Connection& c, std::string_view value) {
    append(c.out, static_cast<std::uint32_t>(value.size()));
    c.out += value;
  }

  static void send_out(Connection& c) {
    const ssize_t sent = send(c.socket.descriptor(), c.out.data(), c.out.size(), MSG_NOSIGNAL);
    if (sent > 0) c.out.erase(0, static_cast<std::size_t>(sent));
    if (sent < 0 && errno != EAGAIN && errno != EINTR) c.is_done = true;
  }

  const Secret secret_;
  const Descriptor wake_;
  std::vector<Socket> listeners_;
  std::vector<Endpoint> endpoints_;
  std::atomic<bool> ends_ = false;
  std::mutex mutex_;
  std::vector<std::string> kept_;
  bool is_full_ = false;
  std::list<Connection> connections_;
  std::map<std::string, std::string> values_;
  std::map<std::string, std::int64_t> counts_;
  std::thread thread_;
};

StoreServer::StoreServer(const Secret& secret, const Endpoint& at)
    : StoreServer(secret, std::span(&at, 1)) {}
StoreServer::StoreServer(const Secret& secret, std::span<const Endpoint> at)
    : loop_(std::make_unique<Loop>(secret, at)) {}
StoreServer::~StoreServer() = default;
const std::vector<Endpoint>& StoreServer::endpoints() const { return loop_->endpoints(); }
void StoreServer::listen_only_at(std::vector<std::string> kept) {
  loop_->listen_only_at(std::move(kept));
}

StoreClient::StoreClient(const Secret& secret, const Endpoint& server, Deadline deadline)
    : StoreClient(secret, std::span(&server, 1), deadline) {}

StoreClient::StoreClient(const Secret& secret, std::span<const Endpoint> servers,
                         Deadline deadline) {
  if (servers.size() == 1) {
    connect(secret, servers[0], deadline, Tries::kUntilDeadline);
    return;
  }
  constexpr double kTrySeconds = 2;
  for (;;) {
    std::string answers;
    for (const Endpoint& server : servers) {
      const double seconds = std::min(kTrySeconds, deadline.seconds_left());
      try {
        connect(secret, server, Deadline::in(seconds), Tries::kOnce);
        return;
      } catch (const Error& error) {
        answers += (answers.empty() ? "" : "; ") + std::string(error.what());
      }
    }
    if (deadline.has_passed()) fail("no rendezvous store of this job answers: {}", answers);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

bool StoreClient::is_answered(const Secret& secret, const Endpoint& server, Deadline deadline) {
  try {
    const Socket socket = connect_to(server, deadline, Tries::kOnce);
    introduce_to_server(socket, secret, "", deadline);
    return true;
  } catch (const Error&) {
    return false;
  }
}

void StoreClient::connect(const Secret& secret, const Endpoint& server, Deadline deadline,
                          Tries tries) {
  socket_ = connect_to(server, deadline, tries);
  server_ = to_string(remote_endpoint(socket_));
  own_address_ = local_endpoint(socket_).host;
  introduce_to_server(socket_, secret, "the rendezvous store at " + server_, deadline);
}

std::string StoreClient::ask(char what, std::string_view key, std::string_view value,
                             Deadline deadline) {
  if (key.empty() || key.size() > kLongestKey || value.size() > kLongestValue) {
    fail("a key of {} bytes with a value of {}; the rendezvous store takes 1 to {} and up to {}",
         key.size(), value.size(), kLongestKey, kLongestValue);
  }
  std::string request;
  const std::string asked = StoreRequest{what, key, value}.bytes();
  append(request, static_cast<std::uint32_t>(asked.size()));
  request += asked;
  const std::lock_guard lock(mutex_);
  if (!socket_.is_open()) fail("the connection to the rendezvous store at {} has ended", server_);
  try {
    send_all(socket_, bytes_of(request), deadline);
    std::uint32_t size = 0;
    receive_all(socket_, std::as_writable_bytes(std::span(&size, 1)), deadline);
    if (size > kLongestValue) fail("it answered with {} bytes", size);
    std::string answer(size, '\0');
    receive_all(socket_, std::as_writable_bytes(std::span(answer)), deadline);
    return answer;
  } catch (const Error& error) {
    socket_ = Socket();  // its answer would come in the place of another's
    fail("the rendezvous store at {} gave no answer for \"{}\": {}", server_, key, error.what());
  }
}

void StoreClient::set(std::string_view key, std::string_view value, Deadline deadline) {
  ask('s', key, value, deadline);
}

std::string StoreClient::get(std::string_view key, Deadline deadline) {
  return ask('g', key, "", deadline);
}

std::int64_t StoreClient::add(std::string_view key, std::int64_t amount, Deadline deadline) {
  std::string bytes;
  append(bytes, amount);
  const std::string sum = ask('a', key, bytes, deadline);
  if (sum.size() != sizeof amount) {
    fail("the rendezvous store at {} answered a sum in {} bytes", server_, sum.size());
  }
  return read<std::int64_t>(sum);
}

}  // namespace concord::net

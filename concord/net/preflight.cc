#include "concord/net/preflight.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "concord/base/clock.h"
#include "concord/base/error.h"
#include "concord/base/log.h"
#include "concord/net/introduction.h"
#include "concord/net/member.h"

// Each rank answers from a thread of its own (Answerer) and, in its turn, asks all others. Asked is
// by 8 bytes, the size of a message that follows; the answer to all of it is one byte.

namespace concord::net {
namespace {

constexpr double kWaySeconds = 5;        // to connect and to say who one is
constexpr double kMeasuredSeconds = 30;  // for all messages of a way
constexpr double kTurnSeconds = 24 * 3600;

using Size = std::uint64_t;

template <typename T>
void send_value(const Socket& socket, const T& value, Deadline deadline) {
  send_all(socket, std::as_bytes(std::span(&value, 1)), deadline);
}
template <typename T>
T receive_value(const Socket& socket, Deadline deadline) {
  T value;
  receive_all(socket, std::as_writable_bytes(std::span(&value, 1)), deadline);
  return value;
}

class Answerer {
 public:
  Answerer(const Secret& secret, const Endpoint& at)
      : secret_(secret), listener_(listen_on(at)), wake_(eventfd(0, EFD_CLOEXEC)) {
    if (!wake_.is_open()) fail("eventfd failed: {}", std::strerror(errno));
    thread_ = std::thread([this] { run(); });
  }
  ~Answerer() {
    const std::uint64_t one = 1;
    CONCORD_CHECK(write(wake_.descriptor(), &one, sizeof one) == sizeof one);
    thread_.join();
  }
  Answerer(const Answerer&) = delete;
  Answerer& operator=(const Answerer&) = delete;

  Endpoint endpoint() const { return local_endpoint(listener_); }

 private:
  void run() {
    for (;;) {
      pollfd entries[] = {{wake_.descriptor(), POLLIN, 0}, {listener_.descriptor(), POLLIN, 0}};
      poll(entries, std::size(entries), -1);
      if (entries[0].revents != 0) return;
      const Socket socket(accept4(listener_.descriptor(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!socket.is_open()) continue;
      try {
        introduce_to_client(socket, secret_, Deadline::in(kWaySeconds));
        answer(socket);
      } catch (const Error& error) {
        log("{}", error.what());
      }
    }
  }

  // Until a message of 0 bytes.
  void answer(const Socket& socket) {
    const Deadline deadline = Deadline::in(kMeasuredSeconds);
    buffer_.resize(std::size_t{1} << 18);
    while (Size left = receive_value<Size>(socket, deadline)) {
      for (; left > 0; left -= std::min<Size>(left, buffer_.size())) {
        receive_all(socket, std::span(buffer_).first(std::min<Size>(left, buffer_.size())),
                    deadline);
      }
      send_value(socket, char{1}, deadline);
    }
  }

  const Secret secret_;
  const Socket listener_;
  const Descriptor wake_;
  std::vector<std::byte> buffer_;
  std::thread thread_;
};

// Seconds until a message of so many bytes is answered.
double time_of(const Socket& socket, std::span<const std::byte> message, Deadline deadline) {
  const double start = now_seconds();
  send_value(socket, Size{message.size()}, deadline);
  send_all(socket, message, deadline);
  receive_value<char>(socket, deadline);
  return now_seconds() - start;
}

void measure(const Socket& socket, Way& way) {
  const Deadline deadline = Deadline::in(kMeasuredSeconds);
  std::vector<std::byte> message(1);
  std::vector<double> times(101);
  for (double& time : times) time = time_of(socket, message, deadline);
  std::ranges::nth_element(times, times.begin() + std::ssize(times) / 2);
  way.latency_seconds = times[times.size() / 2] / 2;

  // A message that is long enough to be timed.
  constexpr double kLong = 0.05;
  constexpr std::size_t kMost = std::size_t{1} << 28;
  for (message.resize(1 << 20);; message.resize(2 * message.size())) {
    const double seconds = time_of(socket, message, deadline) - way.latency_seconds;
    way.bytes_per_second = static_cast<double>(message.size()) / seconds;
    if (seconds > kLong || message.size() >= kMost) break;
  }
  send_value(socket, Size{0}, deadline);
}

std::string address_of(int rank) { return fmt::format("preflight address of rank {}", rank); }
std::string ways_of(int rank) { return fmt::format("preflight ways of rank {}", rank); }
constexpr std::string_view kOver = "preflight is over";

Way try_way(const Membership& job, int to, const Endpoint& address) {
  Way way{.from = job.rank, .to = to};
  try {
    const Deadline deadline = Deadline::in(kWaySeconds);
    const Socket socket = connect_to(address, deadline, Tries::kOnce);  // it listens already
    introduce_to_server(socket, job.secret, fmt::format("rank {} at {}", to, to_string(address)),
                        deadline);
    measure(socket, way);
  } catch (const Error& error) {
    way.error = error.what();
  }
  return way;
}

nlohmann::json to_json(const Way& way) {
  return {way.from, way.to, way.latency_seconds, way.bytes_per_second, way.error};
}

}  // namespace

std::vector<Way> try_all_ways(const Membership& job) {
  const Deadline deadline = Deadline::in(kTurnSeconds);
  const Answerer answerer(job.secret, {job.store->own_address(), 0});
  job.store->set(address_of(job.rank), to_string(answerer.endpoint()), deadline);
  if (job.rank > 0) job.store->get(ways_of(job.rank - 1), deadline);  // their turn is over
  nlohmann::json own = nlohmann::json::array();
  for (int to = 0; to < job.size; ++to) {
    if (to == job.rank) continue;
    const std::string address = job.store->get(address_of(to), deadline);
    own.push_back(to_json(try_way(job, to, parse_endpoints(address, "an address").front())));
  }
  job.store->set(ways_of(job.rank),
                 own.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), deadline);
  if (job.rank > 0) {
    job.store->get(kOver, deadline);
    return {};
  }
  std::vector<Way> ways;
  for (int from = 0; from < job.size; ++from) {
    for (const auto& way : nlohmann::json::parse(job.store->get(ways_of(from), deadline))) {
      ways.push_back({way[0], way[1], way[2], way[3], way[4]});
    }
  }
  job.store->set(kOver, "", deadline);
  return ways;
}

}  // namespace concord::net

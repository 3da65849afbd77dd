// Gloo's transport over a bad network: between two ranks stands a relay that hands on what they say
// late, in small pieces, or not to its end.
#include "concord/net/gloo_transport.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <thread>

#include "concord/base/clock.h"
#include "concord/net/test_transports.h"

namespace concord::net {
namespace {

using testing::HasSubstr;

Deadline soon() { return Deadline::in(30); }

struct Faults {
  std::size_t longest_write = 1 << 16;        // bytes
  double delay = 0;                           // seconds before each write
  std::size_t reset_after = ~std::size_t{0};  // bytes, once both ends have said something
};

// Takes one connection, and connects it with `to`.
class Relay {
 public:
  explicit Relay(const Faults& faults) : faults_(faults), listener_(listen_on({"127.0.0.1", 0})) {}
  ~Relay() { thread_.join(); }

  std::uint16_t port() const { return local_endpoint(listener_).port; }
  void start(const Endpoint& to) {
    thread_ = std::thread([this, to] { run(to); });
  }

 private:
  void run(const Endpoint& to) {
    pollfd waiting{listener_.descriptor(), POLLIN, 0};
    poll(&waiting, 1, 30'000);
    std::array<Socket, 2> ends;
    ends[0] = Socket(accept(listener_.descriptor(), nullptr, nullptr));
    ends[1] = connect_to(to, soon());
    std::vector<std::byte> piece(faults_.longest_write);
    std::array<std::size_t, 2> passed{};
    while (passed[0] == 0 || passed[1] == 0 || passed[0] + passed[1] < faults_.reset_after) {
      std::array<pollfd, 2> entries = {pollfd{ends[0].descriptor(), POLLIN, 0},
                                       pollfd{ends[1].descriptor(), POLLIN, 0}};
      poll(entries.data(), entries.size(), 30'000);
      for (std::size_t from = 0; from < 2; ++from) {
        if (entries[from].revents == 0) continue;
        const ssize_t size = recv(ends[from].descriptor(), piece.data(), piece.size(), 0);
        if (size <= 0) return;
        std::this_thread::sleep_for(std::chrono::duration<double>(faults_.delay));
        try {
          send_all(ends[1 - from], std::span(piece).first(static_cast<std::size_t>(size)), soon());
        } catch (const Error&) {
          return;
        }
        passed[from] += static_cast<std::size_t>(size);
      }
    }
    const linger at_once{1, 0};
    for (const Socket& end : ends) {
      setsockopt(end.descriptor(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
  }

  Faults faults_;
  Socket listener_;
  std::thread thread_;
};

// Puts another in the place of the address that an announcement has for a rank, and returns its
// port. It is one of a system's socket, behind a byte of its length; 32 bytes follow.
std::uint16_t replace_address(std::string& announcement, int rank, const Endpoint& other) {
  std::size_t at = 0;
  for (int r = 0; r < rank; ++r) at += 1 + static_cast<unsigned char>(announcement[at]) + 32;
  sockaddr_in address;
  std::memcpy(&address, &announcement[at + 1], sizeof address);
  const std::uint16_t port = ntohs(address.sin_port);
  address.sin_port = htons(other.port);
  inet_pton(AF_INET, other.host.c_str(), &address.sin_addr);
  std::memcpy(&announcement[at + 1], &address, sizeof address);
  return port;
}

// Two ranks, each with a store of its own, between which their announcements are carried: so that
// rank 1 connects to the relay, and rank 0 to nobody. (Of two ranks, Gloo's lower address listens.)
std::array<std::string, 2> run_with_relay(const Faults& faults, void (*body)(Transport&)) {
  const Secret secret = Secret::random();
  std::array<StoreServer, 2> stores = {StoreServer{secret, {"127.0.0.1", 0}},
                                       StoreServer{secret, {"127.0.0.1", 0}}};
  std::array<std::string, 2> outcomes;
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 2; ++rank) {
    ranks.emplace_back([&, rank] {
      const auto own = static_cast<std::size_t>(rank);
      try {
        StoreClient store(secret, stores[own].endpoint(), soon());
        const auto transport = make_transport(
            "gloo", {.rank = rank, .size = 2, .address = "127.0.0.2"}, store, soon());
        body(*transport);
      } catch (const PeerError& error) {
        EXPECT_EQ(error.rank(), 1 - rank);
        outcomes[own] = error.what();
      }
    });
  }
  Relay relay(faults);
  std::array<std::string, 2> announcements;
  for (std::size_t r = 0; r < 2; ++r) {
    StoreClient store(secret, stores[r].endpoint(), soon());
    announcements[r] = store.get(fmt::format("gloo 1 of rank {}", r), soon());
  }
  relay.start({"127.0.0.2", replace_address(announcements[0], 1, {"127.0.0.1", relay.port()})});
  replace_address(announcements[1], 0, {"127.0.0.3", 1});
  for (std::size_t r = 0; r < 2; ++r) {
    StoreClient store(secret, stores[r].endpoint(), soon());
    store.set(fmt::format("gloo 1 of rank {}", 1 - r), announcements[1 - r], soon());
  }
  for (std::thread& rank : ranks) rank.join();
  return outcomes;
}

TEST(GlooTransport, DelaysAndShortWritesChangeNothing) {
  const Faults all[] = {
      {.longest_write = 1000}, {.longest_write = 7, .delay = 1e-6}, {.delay = 2e-3}};
  for (const Faults& faults : all) {
    const auto outcomes = run_with_relay(faults, [](Transport& transport) {
      exchange(transport, {1 - transport.rank()}, {0, 1, 4096, 100'003, 5});
    });
    EXPECT_THAT(outcomes, testing::Each(""));
  }
}

TEST(GlooTransport, AConnectionThatIsResetIsNamedByBothEnds) {
  // In the first words, between messages, and in the middle of one.
  for (const std::size_t bytes : {10, 1000, 1'000'000}) {
    const double start = now_seconds();
    const auto outcomes = run_with_relay({.reset_after = bytes}, exchange_long_messages);
    EXPECT_THAT(outcomes[0], HasSubstr("rank 1 ")) << bytes;
    EXPECT_THAT(outcomes[1], HasSubstr("rank 0 ")) << bytes;
    EXPECT_LT(now_seconds() - start, 10) << bytes;
  }
}

TEST(GlooTransport, AnAddressOfAnotherMachineIsNamed) {
  const Secret secret = Secret::random();
  const StoreServer server(secret, {"127.0.0.1", 0});
  StoreClient store(secret, server.endpoint(), soon());
  EXPECT_THAT(
      [&] {
        make_transport("gloo", {.rank = 0, .size = 2, .address = "192.0.2.1"}, store, soon());
      },
      testing::ThrowsMessage<Error>(HasSubstr("192.0.2.1")));
}

}  // namespace
}  // namespace concord::net

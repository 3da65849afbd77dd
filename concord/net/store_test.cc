#include "concord/net/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <thread>
#include <vector>

#include "concord/base/error.h"

namespace concord::net {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

const Endpoint kLoopback{"127.0.0.1", 0};
Deadline soon() { return Deadline::in(20); }

std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

struct Served {
  Secret secret = Secret::random();
  StoreServer server{secret, kLoopback};
  StoreClient client() { return {secret, server.endpoint(), soon()}; }
};

TEST(Store, GivesWhatWasSetToEveryClient) {
  Served served;
  StoreClient one = served.client(), other = served.client();
  std::string large(1 << 20, 'x');
  large += '\0';
  one.set("address", "first", soon());
  one.set("address", large, soon());
  EXPECT_EQ(other.get("address", soon()), large);
  EXPECT_EQ(one.own_address(), "127.0.0.1");
}

TEST(Store, CountsForEveryClient) {
  Served served;
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 8; ++rank) {
    ranks.emplace_back([&] {
      StoreClient client = served.client();
      for (int i = 0; i < 100; ++i) client.add("count", 2, soon());
    });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(served.client().add("count", -1, soon()), 1599);
}

TEST(Store, AGetWaitsForTheSet) {
  Served served;
  std::thread late([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    served.client().set("key", "value", soon());
  });
  std::vector<std::thread> waiting;
  for (int i = 0; i < 3; ++i) {
    waiting.emplace_back([&] { EXPECT_EQ(served.client().get("key", soon()), "value"); });
  }
  for (std::thread& rank : waiting) rank.join();
  late.join();
}

TEST(Store, AGetThatNobodyAnswersEndsWithItsKey) {
  Served served;
  StoreClient client = served.client();
  EXPECT_THAT([&] { client.get("rank 3", Deadline::in(0.05)); },
              ThrowsMessage<Error>(HasSubstr("\"rank 3\"")));
  EXPECT_THAT([&] { client.set("a", "b", soon()); }, ThrowsMessage<Error>(HasSubstr("has ended")));
  served.client().set("others", "go on", soon());
}

TEST(Store, RefusesAnotherSecret) {
  Served served;
  testing::internal::CaptureStderr();
  EXPECT_THAT([&] { StoreClient(Secret::random(), served.server.endpoint(), soon()); },
              ThrowsMessage<Error>(HasSubstr("did not accept this job's secret")));
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("refused 127.0.0.1:"));
}

// A client that records what a true one says, and says it again.
TEST(Store, RefusesAProofOfAnotherConnection) {
  Served served;
  std::array<std::byte, 8 + 32> greeting;
  const Socket first = connect_to(served.server.endpoint(), soon());
  receive_all(first, greeting, soon());
  Challenge challenge{.client = Challenge::random_nonce()};
  std::copy_n(greeting.begin() + 8, 32, challenge.server.begin());
  const Challenge::Proof proof = challenge.proof(served.secret, Challenge::Role::kClient);
  Challenge::Proof answer;
  send_all(first, challenge.client, soon());
  send_all(first, proof, soon());
  receive_all(first, answer, soon());
  EXPECT_TRUE(challenge.proves(served.secret, Challenge::Role::kServer, answer));

  testing::internal::CaptureStderr();
  const Socket replay = connect_to(served.server.endpoint(), soon());
  receive_all(replay, greeting, soon());
  send_all(replay, challenge.client, soon());
  send_all(replay, proof, soon());
  EXPECT_THROW(receive_all(replay, answer, soon()), Error);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("does not know the secret"));
}

// Its answer may not be the client's own proof turned back.
TEST(Store, AServerWithoutTheSecretIsNotBelieved) {
  const Socket listener = listen_on(kLoopback);
  std::thread impostor([&] {
    Deadline deadline = soon();
    Socket socket;
    while (!socket.is_open() && !deadline.has_passed()) {
      socket = Socket(accept(listener.descriptor(), nullptr, nullptr));
    }
    std::array<std::byte, 64> hello;
    send_all(socket, as_bytes("CONCORD1"), deadline);
    send_all(socket, Challenge::random_nonce(), deadline);
    receive_all(socket, hello, deadline);
    send_all(socket, std::span(hello).last(32), deadline);
  });
  EXPECT_THAT([&] { StoreClient(Secret::random(), local_endpoint(listener), soon()); },
              ThrowsMessage<Error>(HasSubstr("belongs to another job")));
  impostor.join();
}

TEST(Store, OutlivesGarbage) {
  Served served;
  StoreClient client = served.client();
  testing::internal::CaptureStderr();
  for (const std::string& text : {std::string(200, 'G'), std::string("GET / HTTP/1.1\r\n\r\n")}) {
    const Socket stranger = connect_to(served.server.endpoint(), soon());
    send_all(stranger, as_bytes(text), soon());
  }
  { const Socket silent = connect_to(served.server.endpoint(), soon()); }
  client.set("still", "there", soon());
  EXPECT_EQ(client.get("still", soon()), "there");
  EXPECT_THAT([&] { client.set("", "", soon()); }, ThrowsMessage<Error>(HasSubstr("0 bytes")));
  testing::internal::GetCapturedStderr();
}

TEST(Store, ListensWhereItIsTold) {
  Served served;
  EXPECT_EQ(served.server.endpoint().host, "127.0.0.1");
  EXPECT_GT(served.server.endpoint().port, 0);
  EXPECT_THAT([&] { StoreServer(served.secret, served.server.endpoint()); },
              ThrowsMessage<Error>(HasSubstr(to_string(served.server.endpoint()))));
  EXPECT_THAT(
      [&] {
        StoreServer(served.secret, {"192.0.2.1", 0});
      },
      ThrowsMessage<Error>(HasSubstr("192.0.2.1:0")));
}

TEST(Store, AConnectionToNobodySaysWhoWasTried) {
  const Endpoint gone = [] {
    const Socket listener = listen_on(kLoopback);
    return local_endpoint(listener);
  }();
  EXPECT_THAT([&] { StoreClient(Secret::random(), gone, Deadline::in(0.1)); },
              ThrowsMessage<Error>(HasSubstr("refused")));
  EXPECT_THAT(
      [&] {
        connect_to({"no.such.host.invalid", 1}, Deadline::in(0.1));
      },
      ThrowsMessage<Error>(HasSubstr("no.such.host.invalid")));
}

TEST(Secret, IsWrittenInHex) {
  const Secret secret = Secret::random();
  EXPECT_EQ(Secret::from_hex(secret.to_hex()).to_hex(), secret.to_hex());
  EXPECT_NE(Secret::random().to_hex(), secret.to_hex());
  const std::string wrong(64, 'g');
  EXPECT_THAT([&] { Secret::from_hex(wrong); },
              ThrowsMessage<Error>(testing::Not(HasSubstr("gg"))));
  EXPECT_THROW(Secret::from_hex(""), Error);
}

}  // namespace
}  // namespace concord::net

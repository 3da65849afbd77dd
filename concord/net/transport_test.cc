#include "concord/net/transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <thread>

#include "concord/base/clock.h"
#include "concord/base/file.h"
#include "concord/net/member.h"
#include "concord/net/test_program.h"
#include "concord/net/test_transports.h"

namespace concord {
extern std::atomic<std::int64_t> heap_allocations;  // tests/heap_allocations.cc
}

namespace concord::net {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;
using testing::ThrowsMessage;

Deadline soon() { return Deadline::in(20); }

struct Job {
  Secret secret = Secret::random();
  StoreServer server{secret, {"127.0.0.1", 0}};

  Member member(int rank, int size) const { return {rank, size, {server.endpoint()}, secret}; }
  std::unique_ptr<Transport> join(const std::string& transport, int rank, int size,
                                  Deadline deadline = soon()) const {
    StoreClient store(secret, server.endpoint(), deadline);
    return make_transport(transport, {.rank = rank, .size = size}, store, deadline);
  }
};

// Ranks as threads of this process. What a rank throws is its outcome; "" where it throws nothing.
std::vector<std::string> run_threads(const std::string& transport, int size,
                                     const std::function<void(Transport&)>& body) {
  const Job job;
  std::vector<std::string> outcomes(static_cast<std::size_t>(size));
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank] {
      try {
        const auto joined = job.join(transport, rank, size);
        body(*joined);
      } catch (const Error& error) {
        outcomes[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  return outcomes;
}

// Before memory goes that a transport may still write to.
class Closing {
 public:
  explicit Closing(Transport& transport) : transport_(transport) {}
  Closing(const Closing&) = delete;
  Closing& operator=(const Closing&) = delete;
  ~Closing() { transport_.close(); }

 private:
  Transport& transport_;
};

std::unique_ptr<Program> start_rank(const Job& job, const std::string& transport, int rank,
                                    int size, const std::string& what) {
  return std::make_unique<Program>(std::vector<std::string>{CONCORD_TEST_RANK, transport, what},
                                   job.member(rank, size).to_environment());
}

class Transports : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(, Transports, testing::Values("shm", "gloo"),
                         [](const auto& test) { return test.param; });

TEST_P(Transports, CarryMessagesBetweenThreads) {
  for (int size = 1; size <= 8; ++size) {
    for (const auto& [name, body] : conformance()) {
      EXPECT_THAT(run_threads(GetParam(), size, body), Each("")) << name << ", " << size;
    }
  }
}

TEST_P(Transports, CarryMessagesBetweenProcesses) {
  for (const int size : {2, 5, 8}) {
    const Job job;
    std::vector<std::unique_ptr<Program>> ranks;
    for (int rank = 0; rank < size; ++rank) {
      ranks.push_back(start_rank(job, GetParam(), rank, size, "conformance"));
    }
    for (const auto& rank : ranks) EXPECT_EQ(rank->wait(), 0) << size;
  }
}

TEST_P(Transports, TwoOfOneJobAreApart) {
  const Job job;
  std::thread other([&] {
    const auto first = job.join(GetParam(), 1, 2), second = job.join(GetParam(), 1, 2);
    exchange(*second, {0}, {5, 6});
    exchange(*first, {0}, {7});
  });
  const auto first = job.join(GetParam(), 0, 2), second = job.join(GetParam(), 0, 2);
  exchange(*second, {1}, {5, 6});
  exchange(*first, {1}, {7});
  other.join();
}

TEST_P(Transports, MessagesOfAnotherLengthAreNamed) {
  for (const std::size_t sent : {0, 63, 65}) {
    const auto outcomes = run_threads(GetParam(), 2, [&](Transport& transport) {
      Bytes message(64), next(sent), answer(1);
      const Closing closing(transport);
      if (transport.rank() == 1) {
        const Request first = transport.send(0, next);
        transport.send(0, message);
        transport.wait(transport.receive(0, answer), Deadline::in(0.1));
        transport.wait(first, Deadline::in(0.1));
      } else {
        const Request first = transport.receive(1, message);
        const Request second = transport.receive(1, next);
        EXPECT_THROW(transport.wait(first, soon()), Error);
        transport.wait(second, soon());  // it ends in the same
      }
    });
    EXPECT_EQ(outcomes[0], fmt::format("rank 1 sent {} bytes where rank 0 expects 64", sent));
    EXPECT_THAT(outcomes[1], HasSubstr("rank 0"));
  }
}

TEST_P(Transports, RefuseWhatMakesNoSense) {
  const auto outcomes = run_threads(GetParam(), 2, [](Transport& transport) {
    Bytes message(1);
    const int other = 1 - transport.rank();
    for (const int to : {-1, 2, transport.rank()}) {
      EXPECT_THAT([&] { transport.send(to, message); },
                  ThrowsMessage<Error>(HasSubstr(fmt::format("no message for rank {}", to))));
    }
    const std::span<std::byte> endless(message.data(), Transport::kLongestMessage + 1);
    EXPECT_THAT([&] { transport.receive(other, endless); },
                ThrowsMessage<Error>(HasSubstr("1073741825 bytes")));
    std::vector<Request> requests;
    for (std::uint32_t i = 0; i < Transport::kMostRequests / 2; ++i) {
      requests.push_back(transport.send(other, message));
      requests.push_back(transport.receive(other, message));
    }
    EXPECT_THAT([&] { transport.send(other, message); },
                ThrowsMessage<Error>(HasSubstr("1024 messages are under way")));
    for (const Request& request : requests) transport.wait(request, soon());
  });
  EXPECT_THAT(outcomes, Each(""));
}

TEST_P(Transports, AnInterruptedWaitSaysWhy) {
  const auto outcomes = run_threads(GetParam(), 2, [](Transport& transport) {
    if (transport.rank() == 1) return std::this_thread::sleep_for(std::chrono::milliseconds(400));
    Bytes message(1);
    const Closing closing(transport);
    const Request request = transport.receive(1, message);
    const double start = now_seconds();
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      transport.interrupt("rank 7 has ended");
      transport.interrupt("and another reason");
    });
    EXPECT_THAT([&] { transport.wait(request, soon()); }, ThrowsMessage<Error>("rank 7 has ended"));
    other.join();
    EXPECT_LT(now_seconds() - start, 0.3);
    transport.send(1, message);
  });
  EXPECT_EQ(outcomes[0], "rank 7 has ended");
}

TEST_P(Transports, ARankThatSendsNothingIsNamed) {
  const auto outcomes = run_threads(GetParam(), 3, [](Transport& transport) {
    Bytes message(24);
    const Closing closing(transport);
    if (transport.rank() == 2) {
      std::this_thread::sleep_for(std::chrono::milliseconds(600));
    } else {
      transport.wait(transport.receive(2, message), Deadline::in(0.25));
    }
  });
  EXPECT_EQ(outcomes[0], "rank 2 did not send 24 bytes to rank 0 within 0.25 s");
  EXPECT_EQ(outcomes[1], "rank 2 did not send 24 bytes to rank 1 within 0.25 s");
}

TEST_P(Transports, ARankThatTakesNothingIsNamed) {
  const auto outcomes = run_threads(GetParam(), 2, [](Transport& transport) {
    const Bytes message(64 << 20);
    const Closing closing(transport);
    if (transport.rank() == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(600));
    } else {
      transport.wait(transport.send(1, message), Deadline::in(0.25));
    }
  });
  EXPECT_EQ(outcomes[0], "rank 1 did not take 67108864 bytes from rank 0 within 0.25 s");
}

TEST_P(Transports, ARankThatDoesNotJoinIsNamed) {
  const Job job;
  EXPECT_THAT([&] { job.join(GetParam(), 0, 2, Deadline::in(0.2)); },
              ThrowsMessage<PeerError>(HasSubstr("rank 1 did not come")));
}

// What `wait` throws, which must be a PeerError of rank 1.
std::string error_of_rank_1(const std::function<void()>& wait) {
  try {
    wait();
  } catch (const PeerError& error) {
    EXPECT_EQ(error.rank(), 1);
    return error.what();
  }
  ADD_FAILURE() << "the wait returned";
  return "";
}

TEST_P(Transports, AProcessThatIsKilledIsNamedAtOnce) {
  for (const bool sends : {false, true}) {
    const Job job;
    const auto other = start_rank(job, GetParam(), 1, 2, "wait");
    const auto transport = job.join(GetParam(), 0, 2);
    Bytes byte(1), much(64 << 20);
    transport->wait(transport->receive(1, byte), soon());  // what it said before still comes
    const double start = now_seconds();
    const Request request = sends ? transport->send(1, much) : transport->receive(1, much);
    EXPECT_EQ(other->end(SIGKILL), 128 + SIGKILL);
    const std::string error = error_of_rank_1([&] { transport->wait(request, soon()); });
    EXPECT_THAT(error, HasSubstr(sends ? "before it took 67108864 bytes from rank 0"
                                       : "before it sent 67108864 bytes to rank 0"));
    EXPECT_LT(now_seconds() - start, 5);
    EXPECT_THAT([&] { transport->send(1, byte); }, ThrowsMessage<PeerError>(error));
    transport->close();
  }
}

TEST_P(Transports, AProcessThatIsStoppedIsNamedByTheDeadline) {
  const Job job;
  const auto other = start_rank(job, GetParam(), 1, 2, "wait");
  const auto transport = job.join(GetParam(), 0, 2);
  Bytes byte(1);
  transport->wait(transport->receive(1, byte), soon());
  other->signal(SIGSTOP);
  const Request request = transport->receive(1, byte);
  EXPECT_EQ(error_of_rank_1([&] { transport->wait(request, Deadline::in(0.3)); }),
            "rank 1 did not send 1 bytes to rank 0 within 0.3 s");
  transport->close();
}

TEST(Transport, AnUnknownNameListsTheKnown) {
  EXPECT_THAT([] { Job().join("udp", 0, 1); },
              ThrowsMessage<Error>("\"udp\" is no transport: expected one of shm, gloo, mpi"));
}

TEST(Transport, SharedMemoryAllocatesNothingForAMessage) {
  std::unique_ptr<Transport> one, other;
  {
    const Job job;
    std::thread thread([&] { other = job.join("shm", 1, 2); });
    one = job.join("shm", 0, 2);
    thread.join();
  }  // its store, which allocates, is closed
  Bytes sent(100'000), received(100'000);
  const std::int64_t before = heap_allocations;
  for (int i = 0; i < 100; ++i) {
    const Request sending = one->send(1, sent), receiving = other->receive(0, received);
    other->wait(receiving, soon());
    one->wait(sending, soon());
  }
  EXPECT_EQ(heap_allocations - before, 0);
}

// Under mpirun; the transport itself is loaded where it is used.
class TransportMpi : public testing::Test {
 protected:
  void SetUp() override {
    if (std::string(CONCORD_MPIRUN).empty()) GTEST_SKIP() << "MPI was not there to build with";
  }

  static Outcome run_ranks(int size, const std::string& what) {
    return run_under_mpirun(size, "mpi", what);
  }
};

TEST_F(TransportMpi, CarriesMessages) {
  for (const int size : {2, 4, 8}) {
    const Outcome outcome = run_ranks(size, "conformance");
    EXPECT_EQ(outcome.code, 0) << size << ": " << outcome.said;
  }
}

TEST_F(TransportMpi, NamesMessagesOfAnotherLength) {
  const Outcome outcome = run_ranks(2, "lengths");
  EXPECT_NE(outcome.code, 0);
  EXPECT_THAT(outcome.said, HasSubstr("rank 1 sent 65 bytes where rank 0 expects 64"));
}

TEST_F(TransportMpi, NamesARankThatIsStoppedAndEnds) {
  const double start = now_seconds();
  const Outcome outcome = run_ranks(3, "stop");
  EXPECT_NE(outcome.code, 0);
  EXPECT_THAT(outcome.said, HasSubstr("rank 1 did not send 1 bytes to rank 0 within 1 s"));
  EXPECT_LT(now_seconds() - start, 20);
}

TEST_F(TransportMpi, EndsWhereARankIsKilled) {
  const double start = now_seconds();
  const Outcome outcome = run_ranks(3, "die");
  EXPECT_NE(outcome.code, 0);
  EXPECT_THAT(outcome.said, HasSubstr("signal 9"));
  EXPECT_LT(now_seconds() - start, 20);
}

TEST_F(TransportMpi, RefusesProcessesThatItDidNotStart) {
  const Job job;
  const auto other = start_rank(job, "mpi", 0, 2, "conformance");
  const Outcome outcome = run_shell(fmt::format("{} mpi conformance", CONCORD_TEST_RANK),
                                    job.member(1, 2).to_environment());
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.said,
              HasSubstr("MPI knows this process as the only one, and there are 2 ranks"));
  EXPECT_EQ(other->wait(), 1);
}

}  // namespace
}  // namespace concord::net

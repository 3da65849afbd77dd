#include "concord/comm/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <deque>
#include <functional>
#include <thread>

#include "concord/base/clock.h"
#include "concord/base/error.h"
#include "concord/comm/flight_record.h"
#include "concord/comm/shared_memory_communicator.h"
#include "concord/comm/test_communicators.h"
#include "concord/comm/transport_communicator.h"
#include "concord/net/member.h"
#include "concord/net/test_program.h"

namespace concord::comm {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::Each;
using testing::HasSubstr;

Deadline soon() { return Deadline::in(20); }

// How the ranks of a test are joined: "direct" memory, or by a transport.
struct Backend {
  std::string transport = "direct";
  std::string algorithm = "auto";
  int ranks_of_host = 8;
  bool any_order = false;

  Topology topology(int size) const {
    Topology result{.transport = transport, .size = size};
    for (int r = 0; r < size; ++r) result.hosts.push_back(r / ranks_of_host);
    return result;
  }
};

// A rank, with what it needs as long as it lives.
struct Rank {
  std::unique_ptr<net::StoreClient> store;
  std::unique_ptr<Communicator> communicator;
  Communicator* operator->() const { return communicator.get(); }
};

struct Job {
  Backend backend;
  net::Secret secret = net::Secret::random();
  net::StoreServer server{secret, {"127.0.0.1", 0}};

  Rank join(int rank, int size, double timeout_seconds = 20) const {
    Rank joined{std::make_unique<net::StoreClient>(secret, server.endpoint(), soon()), nullptr};
    joined.communicator = backend.transport == "direct"
                              ? join_by_shared_memory({rank, size, timeout_seconds}, *joined.store)
                              : join_by_transport({.rank = rank,
                                                   .topology = backend.topology(size),
                                                   .timeout_seconds = timeout_seconds,
                                                   .algorithm = algorithm_of(backend.algorithm),
                                                   .any_order = backend.any_order},
                                                  *joined.store);
    return joined;
  }
};

// Ranks as threads of this process. What a rank throws is its outcome; "" where it throws nothing.
std::vector<std::string> run_ranks(const Backend& backend, int size,
                                   const std::function<void(Communicator&)>& body,
                                   double timeout_seconds = 20) {
  const Job job{backend};
  std::vector<std::string> outcomes(static_cast<std::size_t>(size));
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank] {
      try {
        const Rank joined = job.join(rank, size, timeout_seconds);
        body(*joined.communicator);
      } catch (const Error& error) {
        outcomes[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  return outcomes;
}

// With whatever algorithm adds up.
class Sums : public testing::TestWithParam<Backend> {
 protected:
  static bool can_be(int size) {
    try {
      check_algorithm(algorithm_of(GetParam().algorithm), GetParam().topology(size), false);
      return true;
    } catch (const Error&) {
      return false;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(
    , Sums,
    testing::Values(Backend{}, Backend{"shm", "auto"}, Backend{"shm", "halving_doubling"},
                    Backend{"shm", "direct"}, Backend{"shm", "chain"}, Backend{"gloo", "auto"},
                    Backend{"gloo", "halving_doubling"}, Backend{"gloo", "direct"},
                    Backend{"gloo", "chain"}, Backend{"shm", "hierarchical", 2},
                    Backend{"shm", "hierarchical", 4}, Backend{"shm", "auto", 2}),
    [](const auto& test) {
      return fmt::format("{}_{}_{}", test.param.transport, test.param.algorithm,
                         test.param.ranks_of_host);
    });

TEST_P(Sums, TheTreeSumHasTheSameBitsOnAnyNumberOfRanks) {
  const std::vector<std::int64_t> assignments[] = {
      {8},          {4, 8},       {3, 8},       {0, 8},    {8, 8},
      {2, 4, 6, 8}, {1, 2, 7, 8}, {3, 3, 4, 8}, {5, 6, 8}, {1, 2, 3, 4, 5, 6, 7, 8}};
  for (const auto& ends : assignments) {
    const auto size = static_cast<int>(ends.size());
    if (!can_be(size)) continue;
    const auto outcomes = run_ranks(GetParam(), size, [&](Communicator& ranks) {
      for (const std::size_t count : {1, 17, 5000, 5000}) {
        check_tree_sum(ranks, ends, count);
        check_tree_scatter(ranks, ends, count);
      }
    });
    EXPECT_THAT(outcomes, Each("")) << size;
  }
}

TEST_P(Sums, CollectivesOfAnySizeInAnyMemory) {
  for (const int size : {1, 2, 3, 5, 8}) {
    if (!can_be(size)) continue;
    const auto outcomes = run_ranks(GetParam(), size, [&](Communicator& ranks) {
      // The stages of a meeting hold 1024 numbers.
      const std::size_t n = static_cast<std::size_t>(ranks.size());
      for (const std::size_t count : {std::size_t{1}, std::size_t{100}, 1024 / n, 1024 / n + 1,
                                      std::size_t{1024}, std::size_t{1025}, std::size_t{30011}}) {
        check_collectives(ranks, count, /*shared=*/false);
        check_collectives(ranks, count, /*shared=*/true);
      }
    });
    EXPECT_THAT(outcomes, Each("")) << size << " ranks";
  }
}

TEST_P(Sums, GroupsAlongAnAxisDoWhatAJobDoes) {
  for (const int size : {4, 8}) {
    if (!can_be(size)) continue;
    const Mesh mesh{{{"data", 2}, {"tensor", size / 2}}};
    const auto outcomes = run_ranks(GetParam(), size, [&](Communicator& ranks) {
      for (const std::size_t count : {1, 5000}) check_groups(ranks, mesh, count);
    });
    // One host, or one rank of each.
    const bool is_refused = GetParam().algorithm == "hierarchical";
    if (is_refused) {
      EXPECT_THAT(outcomes, Each(HasSubstr("algorithm hierarchical is for")));
    } else {
      EXPECT_THAT(outcomes, Each(""));
    }
  }
}

TEST_P(Sums, LongSumsAreTakenInChunks) {
  if (!can_be(4)) return;
  const auto outcomes = run_ranks(GetParam(), 4, [](Communicator& ranks) {
    check_tree_sum(ranks, {1, 2, 3, 4}, 2'300'001);
    check_tree_scatter(ranks, {1, 2, 3, 4}, 1'300'001);
  });
  EXPECT_THAT(outcomes, Each(""));
}

class Ranks : public testing::TestWithParam<std::string> {
 protected:
  static std::vector<std::string> run_ranks(int size,
                                            const std::function<void(Communicator&)>& body,
                                            double timeout_seconds = 20) {
    return comm::run_ranks({GetParam()}, size, body, timeout_seconds);
  }
};
INSTANTIATE_TEST_SUITE_P(, Ranks, testing::Values("direct", "shm", "gloo"),
                         [](const auto& test) { return test.param; });

// Whole numbers, whose sum does not depend on the order; of a rank that has none, and of several
// nodes each.
TEST(Communicator, AnyOrderAddsUpTheSameNumbers) {
  for (const char* algorithm : {"auto", "direct", "chain", "ring"}) {
    const auto outcomes = run_ranks({"shm", algorithm, 8, true}, 3, [](Communicator& ranks) {
      constexpr std::size_t kCount = 1000;
      const std::vector<std::int64_t> ends = {0, 3, 8};
      const auto rank = static_cast<std::size_t>(ranks.rank());
      const auto nodes = subtrees_of(rank == 0 ? 0 : ends[rank - 1], ends[rank]);
      std::vector<float> numbers(nodes.size() * kCount, 2.0f), sum(kCount);
      std::vector<Part> parts;
      for (const Subtree& node : nodes) {
        parts.push_back(
            {node, reinterpret_cast<std::byte*>(numbers.data() + parts.size() * kCount)});
      }
      ranks.run(
          tree_sum(parts, 0, kCount * sizeof(float), reinterpret_cast<std::byte*>(sum.data())));
      EXPECT_THAT(sum, Each(8.0f));  // two nodes, and two
    });
    EXPECT_THAT(outcomes, Each("")) << algorithm;
  }
}

TEST(Communicator, AnAlgorithmForOtherRanksIsRefused) {
  const auto refuses = [](const char* algorithm, const Topology& topology, const char* why) {
    EXPECT_THAT([&] { check_algorithm(algorithm_of(algorithm), topology, false); },
                testing::ThrowsMessage<Error>(HasSubstr(why)));
  };
  refuses("halving_doubling", {"gloo", 3}, "algorithm halving_doubling is for 2, 4, 8, ... ranks");
  refuses("hierarchical", {"gloo", 4}, "is for several hosts, and here is one");
  refuses("hierarchical", {"gloo", 2, {0, 1}}, "each has one here");
  refuses("hierarchical", {"gloo", 4, {0, 1, 0, 1}}, "the ranks here are on hosts number 0, 1, 0");
  refuses("hierarchical", {"gloo", 3, {0, 0, 1}}, "hosts with equally many ranks");
  refuses("ring", {"gloo", 4}, "allow it by parallel.deterministic = false");
  const Job job{{"shm", "halving_doubling"}};
  EXPECT_THAT([&] { job.join(0, 3); }, testing::ThrowsMessage<Error>(HasSubstr("not for 3")));
  EXPECT_THAT([] { algorithm_of("fast"); },
              testing::ThrowsMessage<Error>(HasSubstr("auto, direct, halving_doubling")));
}

TEST(Communicator, TheFastestAlgorithmDependsOnBytesRanksAndHosts) {
  constexpr std::size_t kSmall = 4 << 10, kLarge = 16 << 20;
  const std::vector<int> pairs = {0, 0, 1, 1, 2, 2};
  EXPECT_EQ(fastest_algorithm({"gloo", 2}, kSmall), Algorithm::kHalvingDoubling);
  EXPECT_EQ(fastest_algorithm({"gloo", 3}, kSmall), Algorithm::kChain);
  EXPECT_EQ(fastest_algorithm({"gloo", 9}, kSmall), Algorithm::kDirect);
  EXPECT_EQ(fastest_algorithm({"gloo", 6}, kLarge), Algorithm::kDirect);
  EXPECT_EQ(fastest_algorithm({"gloo", 6, pairs}, kLarge), Algorithm::kHierarchical);
  EXPECT_EQ(fastest_algorithm({"mpi", 2}, kLarge), Algorithm::kDirect);
}

TEST_P(Ranks, ShareWhatOneRankKnows) {
  const auto outcomes = run_ranks(3, [](Communicator& ranks) {
    const std::string large(1'000'000, 'x');
    EXPECT_EQ(ranks.broadcast(ranks.is_first() ? large : ""), large);
    EXPECT_EQ(ranks.broadcast(ranks.is_first() ? "" : "not said"), "");
    EXPECT_EQ(ranks.any_of(1u << ranks.rank()), 7u);
    EXPECT_EQ(ranks.any_of(ranks.rank() == 2 ? 8 : 0), 8u);
    EXPECT_EQ(ranks.any_of(0), 0u);
  });
  EXPECT_THAT(outcomes, Each(std::string()));
}

TEST_P(Ranks, WhatIsStartedIsDoneInOrderWhileTheRankGoesOn) {
  const auto outcomes = run_ranks(3, [](Communicator& ranks) {
    constexpr std::size_t kCount = 20000;
    std::vector<std::vector<float>> values;
    std::vector<Ticket> tickets;
    for (int i = 0; i < 400; ++i) values.push_back(std::vector<float>(kCount / 100, 1.0f));
    for (auto& own : values) tickets.push_back(ranks.start(all_reduce(own, own, "ones")));
    EXPECT_EQ(ranks.any_of(ranks.rank() == 1 ? 4 : 0), 4u);
    for (std::size_t i = 200; i < values.size(); ++i) ranks.wait(tickets[i]);
    for (const auto& own : values) EXPECT_THAT(own, Each(3.0f));
    const std::vector<Record> records = ranks.flight_record();
    EXPECT_EQ(records.size(), 256u);
    EXPECT_EQ(records.back().operation.kind, Operation::Kind::kAgreement);
    EXPECT_EQ(records[0].operation.label.text(), "ones");
    EXPECT_GT(records[0].ended, records[0].began);
    EXPECT_GT(ranks.usage().busy, 0);
    EXPECT_LE(ranks.usage().waited, ranks.usage().busy);
  });
  EXPECT_THAT(outcomes, Each(std::string()));
}

TEST_P(Ranks, ManyCallsInARowKeepTheirOrder) {
  const auto outcomes = run_ranks(4, [](Communicator& ranks) {
    for (std::uint32_t i = 0; i < 2000; ++i) {
      ASSERT_EQ(ranks.any_of(ranks.rank() == static_cast<int>(i % 4) ? i : 0), i);
    }
  });
  EXPECT_THAT(outcomes, Each(std::string()));
}

TEST_P(Ranks, ARankThatComesLateIsWaitedFor) {
  const Job job{{GetParam()}};
  std::thread late([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    job.join(1, 2)->barrier();
  });
  job.join(0, 2)->barrier();
  late.join();
}

TEST_P(Ranks, ARankThatDoesNotComeIsNamed) {
  const auto outcomes = run_ranks(
      3,
      [](Communicator& ranks) {
        ranks.set_step(11);
        ranks.any_of(0);
        if (ranks.rank() == 1) {
          std::this_thread::sleep_for(std::chrono::milliseconds(3000));
        }
        ranks.set_step(12);
        std::array<float, 4> values{};
        ranks.run(all_reduce(values, values, "fc.weight"));
      },
      /*timeout_seconds=*/2);
  for (const std::string& outcome : outcomes) {
    EXPECT_THAT(outcome, HasSubstr("rank 1 (process"));
    EXPECT_THAT(outcome,
                HasSubstr("did not come to the all-reduce of fc.weight of step 12 within 2 s"));
    EXPECT_THAT(outcome, HasSubstr("last seen in the agreement of step 11"));
  }
}

TEST_P(Ranks, RanksThatCallDifferentThingsAreNamed) {
  const auto outcomes = run_ranks(2, [](Communicator& ranks) {
    ranks.set_step(3);
    if (ranks.is_first()) ranks.any_of(0);
    ranks.barrier();
  });
  for (const std::string& outcome : outcomes) {
    EXPECT_THAT(
        outcome,
        AnyOf(
            HasSubstr(
                "rank 0 calls the agreement of step 3 while rank 1 calls the barrier of step 3"),
            HasSubstr(
                "rank 1 calls the barrier of step 3 while rank 0 calls the agreement of step 3")));
  }
}

TEST_P(Ranks, SumsOfDifferentSizesAreNamed) {
  const auto outcomes = run_ranks(2, [](Communicator& ranks) {
    std::byte* const memory = ranks.share(128);
    const Part part{{0, ranks.rank()}, memory};
    ranks.run(tree_sum({&part, 1}, 0, 128, memory));
    ranks.run(tree_sum({&part, 1}, 0, ranks.is_first() ? 64 : 128, memory, "bias"));
  });
  EXPECT_THAT(outcomes, Each(HasSubstr("bytes to the sum of bias of step 0, and rank")));
}

TEST_P(Ranks, MessagesOfDifferentSizesAreNamed) {
  const auto outcomes = run_ranks(3, [](Communicator& ranks) {
    std::vector<std::byte> memory(128);
    if (ranks.rank() == 0) ranks.run(send(memory, 2, "activations"));
    if (ranks.rank() == 2) ranks.run(receive(std::span(memory).first(64), 0, "activations"));
    ranks.barrier();
  });
  EXPECT_THAT(outcomes, Each(AllOf(HasSubstr("send of activations of step 0"), HasSubstr("64"),
                                   HasSubstr("128"))));
}

TEST_P(Ranks, AbortEndsTheOthersWithItsReason) {
  const auto outcomes = run_ranks(3, [](Communicator& ranks) {
    if (ranks.rank() == 2) return ranks.abort("rank 2: the data is gone");
    ranks.any_of(0);
  });
  EXPECT_THAT(outcomes,
              testing::ElementsAre("rank 2: the data is gone", "rank 2: the data is gone", ""));
}

const Mesh kSquare{{{"data", 2}, {"tensor", 2}}};

TEST_P(Ranks, AnAxisOfAllIsTheJobAndOneOfNoneIsARankAlone) {
  const auto outcomes = run_ranks(4, [](Communicator& ranks) {
    const Mesh mesh{{{"data", 1}, {"tensor", 4}}};
    EXPECT_EQ(&ranks.split(mesh, "tensor"), &ranks);
    EXPECT_EQ(ranks.split(mesh, "data").size(), 1);
    EXPECT_EQ(ranks.split(mesh, "pipe").size(), 1);
    EXPECT_EQ(ranks.split(mesh, "pipe").any_of(5), 5u);
    EXPECT_THAT(
        [&] {
          ranks.split({{{"tensor", 2}}}, "tensor");
        },
        testing::ThrowsMessage<Error>(HasSubstr("mesh {tensor: 2} has 2 ranks, and there are 4")));
    EXPECT_THAT(
        [&] {
          ranks.split({{{"tensor", 4}}}, "tensor");
        },
        testing::ThrowsMessage<Error>(HasSubstr("expected one mesh")));
  });
  EXPECT_THAT(outcomes, Each(""));
}

// Two streams of messages in opposite directions, between which a rank waits: what it has asked for
// ahead does not keep it from what has come.
TEST_P(Ranks, PairsOfRanksHaveGroupsWhoseMessagesWaitForNoOthers) {
  const auto outcomes = run_ranks(3, [](Communicator& ranks) {
    const std::vector<int> colors = {0, 0, 2};
    Communicator& there = ranks.split("there", colors);
    Communicator& back = ranks.split("back", colors);
    EXPECT_EQ(there.size(), ranks.rank() == 2 ? 1 : 2);
    EXPECT_NE(&there, &ranks);
    if (ranks.rank() == 2) return;
    std::vector<std::byte> memory(4 << 10), others(4 << 10);
    std::array<Ticket, 4> asked{};
    Communicator& in = ranks.rank() == 0 ? back : there;
    Communicator& out = ranks.rank() == 0 ? there : back;
    const int peer = 1 - ranks.rank();
    for (std::size_t m = 0; m < asked.size(); ++m) {
      asked[m] = in.start(receive(std::span(memory).subspan(m << 10, 1 << 10), peer, "message"));
    }
    for (std::size_t m = 0; m < asked.size(); ++m) {
      std::ranges::fill(others, static_cast<std::byte>(10 * ranks.rank() + m));
      if (ranks.rank() == 0) out.run(send(std::span(others).first(1 << 10), peer, "message"));
      in.wait(asked[m]);
      EXPECT_EQ(memory[m << 10], static_cast<std::byte>(10 * peer + m));
      if (ranks.rank() == 1) out.run(send(std::span(others).first(1 << 10), peer, "message"));
    }
    EXPECT_THAT(
        [&] {
          ranks.split("there", std::vector<int>{0, 1, 2});
        },
        testing::ThrowsMessage<Error>(HasSubstr("expected the same")));
  });
  EXPECT_THAT(outcomes, Each(""));
}

TEST_P(Ranks, RanksOfDifferentMeshesAreNamed) {
  const auto outcomes = run_ranks(2, [](Communicator& ranks) {
    const Mesh mesh = ranks.is_first() ? Mesh{{{"data", 2}}} : Mesh{{{"tensor", 2}}};
    ranks.split(mesh, "data");
  });
  EXPECT_EQ(outcomes[1], "rank 1 has mesh {tensor: 2}, and rank 0 has mesh {data: 2}");
}

TEST_P(Ranks, WhatAGroupDoesIsCountedAndRememberedWithItsAxis) {
  const auto outcomes = run_ranks(4, [](Communicator& ranks) {
    ranks.set_step(7);
    Communicator& group = ranks.split(kSquare, "tensor");
    const std::size_t before = ranks.bytes();
    group.share(10'000);
    EXPECT_EQ(ranks.bytes(), before + 10'000);
    ranks.set_step(8);
    std::vector<float> values(100);
    group.run(all_reduce(values, values, "ones"));
    const Record last = ranks.flight_record().back();
    EXPECT_EQ(last.step, 8);
    EXPECT_EQ(last.operation.label.text(), "ones");
    EXPECT_EQ(last.axis.text(), "tensor");
    EXPECT_THAT(described({last}, now_seconds())[0],
                HasSubstr("step 8: all-reduce of ones along tensor, 400 bytes"));
  });
  EXPECT_THAT(outcomes, Each(""));
}

TEST_P(Ranks, WhatIsUnsharedIsHeldNoMore) {
  const auto outcomes = run_ranks(3, [](Communicator& ranks) {
    constexpr std::size_t kNumbers = 5000, kBytes = kNumbers * sizeof(float);
    const std::size_t before = ranks.bytes();
    const auto share = [&] {
      return std::span(reinterpret_cast<float*>(ranks.share(kBytes)), kNumbers);
    };
    const auto unshare = [&](std::span<float> memory) {
      ranks.unshare(reinterpret_cast<std::byte*>(memory.data()));
    };
    const auto check_sum = [&](std::span<float> values) {
      std::ranges::copy(test_numbers(ranks.rank(), kNumbers), values.begin());
      const Result result = ranks.run(all_reduce(values, values));
      expect_equal(values, test_sum(0, ranks.size(), kNumbers), "a sum");
      return result;
    };
    const std::span<float> first = share(), second = share();
    EXPECT_EQ(ranks.bytes(), before + 2 * kBytes);
    unshare(first);
    EXPECT_EQ(ranks.bytes(), before + kBytes);
    const Result of_second = check_sum(second);
    EXPECT_EQ(of_second.in_place, ranks.has_common_memory());
    const std::span<float> third = share();
    EXPECT_EQ(check_sum(third).in_place, of_second.in_place);
    std::vector<float> others(kNumbers);
    EXPECT_FALSE(check_sum(others).in_place);
    unshare(second);
    unshare(third);
    EXPECT_LE(ranks.bytes(), before + kBytes);  // a backend's own grows with operations
  });
  EXPECT_THAT(outcomes, Each(""));
}

TEST_P(Ranks, AbortEndsGroupsToo) {
  const auto outcomes = run_ranks(4, [](Communicator& ranks) {
    Communicator &data = ranks.split(kSquare, "data"), &tensor = ranks.split(kSquare, "tensor");
    if (ranks.rank() == 3) return tensor.abort("rank 3: the data is gone");
    (ranks.rank() == 2 ? tensor : data).any_of(0);
    tensor.any_of(0);
  });
  const std::string line = "rank 3: the data is gone";
  EXPECT_THAT(outcomes, testing::ElementsAre(line, line, line, ""));
}

// In the group of 0 and 1 two call different things, and 2 and 3 wait for them in others.
TEST_P(Ranks, WhatGoesWrongInAGroupEndsAllByOneLine) {
  const auto outcomes = run_ranks(4, [](Communicator& ranks) {
    Communicator &data = ranks.split(kSquare, "data"), &tensor = ranks.split(kSquare, "tensor");
    ranks.set_step(3);
    if (ranks.rank() == 0) tensor.any_of(0);
    if (ranks.rank() == 1) tensor.barrier();
    if (ranks.rank() == 2) data.any_of(0);
    if (ranks.rank() == 3) ranks.barrier();
  });
  EXPECT_THAT(outcomes[0], HasSubstr("calls the agreement of step 3 along tensor"));
  EXPECT_THAT(outcomes[0], HasSubstr("rank 1 calls the barrier of step 3 along tensor"));
  EXPECT_THAT(outcomes, Each(outcomes[0]));
}

TEST_P(Ranks, AGroupThatFailsEndsTheJob) {
  const auto outcomes = run_ranks(4, [](Communicator& ranks) {
    Communicator& tensor = ranks.split(kSquare, "tensor");
    if (ranks.rank() < 2) {
      try {
        ranks.rank() == 0 ? tensor.barrier() : void(tensor.any_of(0));
      } catch (const RankError&) {
      }
    }
    ranks.barrier();
  });
  EXPECT_THAT(outcomes, Each(AllOf(HasSubstr("along tensor"), HasSubstr("while rank"))));
}

// Ranks that are processes of their own; the first are threads of this one.
class Processes : public Ranks {
 protected:
  // The outcomes of ranks 0 to size - 2, which do `body`; the last one does `what` (test_rank.cc).
  static std::vector<std::string> run(int size, const std::string& what, double timeout_seconds,
                                      const std::function<void(Communicator&)>& body) {
    const Job job{{GetParam()}};
    const net::Member member{size - 1, size, {job.server.endpoint()}, job.secret};
    net::Program last({CONCORD_TEST_RANK, GetParam(), what}, member.to_environment());
    std::vector<std::string> outcomes(static_cast<std::size_t>(size - 1));
    std::vector<std::thread> ranks;
    for (int rank = 0; rank < size - 1; ++rank) {
      ranks.emplace_back([&, rank] {
        try {
          body(*job.join(rank, size, timeout_seconds).communicator);
        } catch (const Error& error) {
          outcomes[static_cast<std::size_t>(rank)] = error.what();
        }
      });
    }
    for (std::thread& rank : ranks) rank.join();
    return outcomes;
  }
  static void agree_and_reduce(Communicator& ranks) {
    ranks.any_of(0);
    ranks.set_step(5);
    std::vector<float> values(1 << 20);
    ranks.run(all_reduce(values, values, "fc.weight"));
  }
};
INSTANTIATE_TEST_SUITE_P(, Processes, testing::Values("direct", "shm", "gloo"),
                         [](const auto& test) { return test.param; });

TEST_P(Processes, DoWhatThreadsDo) {
  for (const int size : {1, 2, 4, 8}) {
    const Job job{{GetParam()}};
    std::deque<net::Program> ranks;
    for (int rank = 0; rank < size; ++rank) {
      const net::Member member{rank, size, {job.server.endpoint()}, job.secret};
      ranks.emplace_back(std::vector<std::string>{CONCORD_TEST_RANK, GetParam(), "collectives"},
                         member.to_environment());
    }
    for (net::Program& rank : ranks) EXPECT_EQ(rank.wait(), 0) << size << " ranks";
  }
}

TEST_P(Processes, OneThatIsKilledIsNamedAtOnce) {
  const double start = now_seconds();
  const auto outcomes = run(3, "agree-die", 20, agree_and_reduce);
  EXPECT_THAT(outcomes[0], HasSubstr("rank 2 (process "));
  EXPECT_THAT(outcomes[0], HasSubstr(") has ended before the all-reduce of fc.weight of step 5"));
  EXPECT_EQ(outcomes[1], outcomes[0]);
  EXPECT_LT(now_seconds() - start, 10);
}

TEST_P(Processes, OneThatIsStoppedIsNamedByTheDeadline) {
  const auto outcomes = run(3, "agree-stop", 1, agree_and_reduce);
  EXPECT_THAT(outcomes[0], HasSubstr("rank 2 (process "));
  EXPECT_THAT(outcomes[0],
              HasSubstr("did not come to the all-reduce of fc.weight of step 5 within 1 s"));
  EXPECT_EQ(outcomes[1], outcomes[0]);
}

// Rank 3 does not come to rank 2, for which rank 0 waits in another group, and rank 1 for that one.
void meet_in_groups(Communicator& ranks) {
  Communicator &data = ranks.split(kSquare, "data"), &tensor = ranks.split(kSquare, "tensor");
  ranks.any_of(0);
  ranks.set_step(5);
  std::vector<float> values(1 << 18);
  const auto sum = all_reduce(values, values, "fc.weight");
  if (ranks.rank() == 2) {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));  // so that others give up first
    tensor.run(sum);
  }
  if (ranks.rank() == 0) data.run(sum);
  tensor.run(sum);
}

TEST_P(Processes, OneThatIsKilledIsNamedWhereOthersWaitInOtherGroups) {
  const double start = now_seconds();
  const auto outcomes = run(4, "groups-die", 20, meet_in_groups);
  EXPECT_THAT(outcomes[0], HasSubstr("rank 3 (process "));
  EXPECT_THAT(outcomes[0], HasSubstr(") has ended before the all-reduce of fc.weight of step 5 "
                                     "along tensor"));
  EXPECT_THAT(outcomes, Each(outcomes[0]));
  EXPECT_LT(now_seconds() - start, 10);
}

TEST_P(Processes, OneThatIsStoppedIsNamedWhereOthersWaitInOtherGroups) {
  const auto outcomes = run(4, "groups-stop", 1, meet_in_groups);
  EXPECT_THAT(outcomes[0], HasSubstr("rank 3 (process "));
  EXPECT_THAT(outcomes[0], HasSubstr("did not come to "));
  EXPECT_THAT(outcomes[0], HasSubstr("within 1 s"));
  EXPECT_THAT(outcomes, Each(outcomes[0]));
}

TEST_P(Processes, OneThatEndsAfterItsLastCallTroublesNobody) {
  for (int round = 0; round < 5; ++round) {
    const auto outcomes = run(3, "agree", 20, [](Communicator& ranks) { ranks.any_of(0); });
    EXPECT_THAT(outcomes, Each(""));
  }
}

TEST(Communicator, RanksUnderMpirunAddUpByMpi) {
  if (std::string(CONCORD_MPIRUN).empty()) GTEST_SKIP() << "MPI was not there to build with";
  for (const int size : {2, 3, 4, 8}) {
    const net::Outcome outcome = net::run_under_mpirun(size, "mpi", "collectives");
    EXPECT_EQ(outcome.code, 0) << size << ": " << outcome.said;
  }
}

}  // namespace
}  // namespace concord::comm

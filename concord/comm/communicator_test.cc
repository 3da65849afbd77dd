#include "concord/comm/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <functional>
#include <thread>

#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/comm/shared_memory_communicator.h"

namespace concord::comm {
namespace {

using testing::Each;
using testing::HasSubstr;

Deadline soon() { return Deadline::in(20); }

struct Job {
  net::Secret secret = net::Secret::random();
  net::StoreServer server{secret, {"127.0.0.1", 0}};

  std::unique_ptr<Communicator> join(int rank, int size, double timeout_seconds = 20) const {
    net::StoreClient store(secret, server.endpoint(), soon());
    return join_by_shared_memory({rank, size, timeout_seconds}, store);
  }
};

// Ranks as threads of this process. What a rank throws is its outcome; "" where it throws nothing.
std::vector<std::string> run_ranks(int size, const std::function<void(Communicator&)>& body,
                                   double timeout_seconds = 20) {
  const Job job;
  std::vector<std::string> outcomes(static_cast<std::size_t>(size));
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank] {
      try {
        const auto communicator = job.join(rank, size, timeout_seconds);
        body(*communicator);
      } catch (const Error& error) {
        outcomes[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  return outcomes;
}

// Of very different sizes: their sum depends on the order in which they are added.
float number(std::int64_t leaf, std::int64_t i) {
  const std::uint32_t bits =
      RandomStream{.stream = static_cast<std::uint32_t>(leaf)}.bits(static_cast<std::uint64_t>(i));
  return std::ldexp(uniform01(bits), static_cast<int>(bits % 31)) * (bits % 2 == 0 ? 1.0f : -1.0f);
}

std::vector<std::byte> bytes_of(const std::byte* data, std::size_t count) {
  return {data, data + count};
}

// The tree sum of `leaves` leaves, of which rank r holds those from ends[r - 1] to ends[r].
std::vector<std::byte> sum_over(Communicator& ranks, const std::vector<std::int64_t>& ends,
                                std::int64_t count) {
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(float);
  const auto rank = static_cast<std::size_t>(ranks.rank());
  std::byte* memory = ranks.share(8 * bytes);
  std::vector<Part> parts;
  for (const Subtree& node : subtrees_of(rank == 0 ? 0 : ends[rank - 1], ends[rank])) {
    std::vector<std::vector<float>> leaves;
    std::vector<Subtree> own;
    for (std::int64_t l = 0; l < std::int64_t{1} << node.height; ++l) {
      own.push_back({0, l});
      auto& values = leaves.emplace_back();
      for (std::int64_t i = 0; i < count; ++i) {
        values.push_back(number((node.index << node.height) + l, i));
      }
    }
    Joins joins;
    for (const Join& j : joins.of(own)) {
      for (std::size_t i = 0; i < leaves[0].size(); ++i) leaves[j.into][i] += leaves[j.from][i];
    }
    std::memcpy(memory, leaves[0].data(), bytes);
    parts.push_back({node, memory});
    memory += bytes;
  }
  return bytes_of(ranks.tree_sum(parts, bytes), bytes);
}

TEST(Communicator, TheTreeSumHasTheSameBitsOnAnyNumberOfRanks) {
  for (const std::int64_t count : {1, 17, 5000}) {
    Alone alone;
    const std::vector<std::byte> expected = sum_over(alone, {8}, count);
    const std::vector<std::int64_t> assignments[] = {
        {4, 8}, {3, 8}, {0, 8}, {8, 8}, {2, 4, 6, 8}, {1, 2, 7, 8}, {1, 2, 3, 4, 5, 6, 7, 8}};
    for (const auto& ends : assignments) {
      const auto outcomes = run_ranks(static_cast<int>(ends.size()), [&](Communicator& ranks) {
        for (int step = 0; step < 3; ++step) EXPECT_EQ(sum_over(ranks, ends, count), expected);
      });
      EXPECT_THAT(outcomes, Each(std::string()));
    }
  }
}

TEST(Communicator, TheTreeSumOfOtherNumbersDiffers) {
  Alone alone;
  EXPECT_NE(sum_over(alone, {8}, 100), sum_over(alone, {7}, 100));
}

TEST(Communicator, SharesWhatOneRankKnows) {
  const auto outcomes = run_ranks(3, [](Communicator& ranks) {
    const std::string large(100000, 'x');
    EXPECT_EQ(ranks.broadcast(ranks.is_first() ? large : ""), large);
    EXPECT_EQ(ranks.broadcast(ranks.is_first() ? "" : "not said"), "");
    EXPECT_EQ(ranks.any_of(1u << ranks.rank()), 7u);
    EXPECT_EQ(ranks.any_of(ranks.rank() == 2 ? 8 : 0), 8u);
    EXPECT_EQ(ranks.any_of(0), 0u);
  });
  EXPECT_THAT(outcomes, Each(std::string()));
}

TEST(Communicator, ManyCallsInARowKeepTheirOrder) {
  const auto outcomes = run_ranks(4, [](Communicator& ranks) {
    for (std::uint32_t i = 0; i < 2000; ++i) {
      ASSERT_EQ(ranks.any_of(ranks.rank() == static_cast<int>(i % 4) ? i : 0), i);
    }
  });
  EXPECT_THAT(outcomes, Each(std::string()));
}

TEST(Communicator, ARankThatDoesNotComeIsNamed) {
  const auto outcomes = run_ranks(
      3,
      [](Communicator& ranks) {
        ranks.set_step(11);
        ranks.any_of(0);
        if (ranks.rank() == 1) {
          std::this_thread::sleep_for(std::chrono::milliseconds(3000));
        }
        ranks.set_step(12);
        ranks.share(64);
      },
      /*timeout_seconds=*/2);
  for (const std::string& outcome : outcomes) {
    EXPECT_THAT(outcome, HasSubstr("rank 1 (process"));
    EXPECT_THAT(outcome, HasSubstr("did not come to the sharing of memory of step 12 within 2 s"));
    EXPECT_THAT(outcome, HasSubstr("last seen in the agreement of step 11"));
  }
}

TEST(Communicator, RanksThatCallDifferentThingsAreNamed) {
  const auto outcomes = run_ranks(2, [](Communicator& ranks) {
    ranks.set_step(3);
    if (ranks.is_first()) ranks.any_of(0);
    ranks.share(1);
  });
  for (const std::string& outcome : outcomes) {
    EXPECT_THAT(outcome, HasSubstr("in step 3 while rank"));
  }
}

TEST(Communicator, SumsOfDifferentSizesAreNamed) {
  const auto outcomes = run_ranks(2, [](Communicator& ranks) {
    std::byte* const memory = ranks.share(128);
    const Part part{{0, ranks.rank()}, memory};
    ranks.tree_sum({&part, 1}, 128);
    ranks.tree_sum({&part, 1}, ranks.is_first() ? 64 : 128);
  });
  EXPECT_THAT(outcomes, Each(HasSubstr("bytes to the tree sum of step 0")));
}

TEST(Communicator, AbortEndsTheOthersWithItsReason) {
  const auto outcomes = run_ranks(3, [](Communicator& ranks) {
    if (ranks.rank() == 2) return ranks.abort("rank 2: the data is gone");
    ranks.any_of(0);
  });
  EXPECT_THAT(outcomes,
              testing::ElementsAre("rank 2: the data is gone", "rank 2: the data is gone", ""));
}

// Nothing of the tests goes on in a child.
template <typename Body>
[[noreturn]] void run_in_child(Body body) {
  try {
    body();
  } catch (const std::exception&) {
    _exit(1);
  }
  _exit(0);
}

// A process that is killed, where the others wait for it.
TEST(Communicator, ARankThatEndsIsNamedAtOnce) {
  const Job job;
  const pid_t child = fork();
  if (child == 0) {
    run_in_child([&] {
      job.join(1, 2)->any_of(0);
      raise(SIGKILL);
    });
  }
  const auto ranks = job.join(0, 2);
  ranks->any_of(0);
  ranks->set_step(5);
  try {
    ranks->any_of(0);
    ADD_FAILURE() << "the call returned";
  } catch (const Error& error) {
    EXPECT_EQ(error.what(),
              fmt::format("rank 1 (process {}) has ended before the agreement of step 5", child));
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
}

TEST(Communicator, ARankThatEndsAfterItsLastCallTroublesNobody) {
  for (int round = 0; round < 20; ++round) {
    const Job job;
    const pid_t child = fork();
    if (child == 0) run_in_child([&] { job.join(1, 2)->any_of(0); });
    job.join(0, 2)->any_of(0);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
}

}  // namespace
}  // namespace concord::comm

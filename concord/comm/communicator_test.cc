#include "concord/comm/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
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

using testing::AnyOf;
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
  std::byte* const own = ranks.share(8 * bytes);
  std::byte* memory = own;
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
  const auto sum = bytes_of(ranks.run(tree_sum(parts, 0, bytes, own, "numbers")).sum, bytes);
  ranks.barrier();
  return sum;
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

std::vector<float> values_of(int rank, std::size_t count) {
  std::vector<float> values;
  for (std::size_t i = 0; i < count; ++i)
    values.push_back(number(rank, static_cast<std::int64_t>(i)));
  return values;
}

// Along the canonical tree over ranks.
std::vector<float> sum_of_ranks(int size, std::size_t count) {
  std::vector<std::vector<float>> values;
  std::vector<Subtree> nodes;
  for (int r = 0; r < size; ++r) {
    values.push_back(values_of(r, count));
    nodes.push_back({0, r});
  }
  Joins joins;
  for (const Join& join : joins.of(nodes)) {
    for (std::size_t i = 0; i < count; ++i) values[join.into][i] += values[join.from][i];
  }
  return values[0];
}

// Each rank's `count` numbers, or those of rank `only`, one after another.
std::vector<float> ranks_in_a_row(int size, std::size_t count) {
  std::vector<float> row;
  for (int r = 0; r < size; ++r) {
    const std::vector<float> own = values_of(r, count);
    row.insert(row.end(), own.begin(), own.end());
  }
  return row;
}

// Memory that others can read where it lies, or not.
std::span<float> memory_for(Communicator& ranks, bool shared, std::vector<float>& own,
                            std::size_t count) {
  if (shared) return {reinterpret_cast<float*>(ranks.share(count * sizeof(float))), count};
  own.resize(count);
  return own;
}

TEST(Communicator, CollectivesOfAnySizeInAnyMemory) {
  for (const int size : {1, 2, 3, 5, 8}) {
    const auto n = static_cast<std::size_t>(size);
    for (const std::size_t count : {std::size_t{1}, std::size_t{100}, std::size_t{30011}}) {
      for (const bool shared : {false, true}) {
        const auto outcomes = run_ranks(size, [&](Communicator& ranks) {
          const auto r = static_cast<std::size_t>(ranks.rank());
          std::vector<float> memory[4];
          const auto in = memory_for(ranks, shared, memory[0], count * n);
          const auto out = memory_for(ranks, shared, memory[1], count * n);
          const auto fill = [&](std::size_t values) {
            std::ranges::copy(values_of(ranks.rank(), values), in.begin());
            ranks.barrier();
          };
          const auto first = [&](std::span<float> values, std::size_t k) {
            return std::vector<float>(values.begin(),
                                      values.begin() + static_cast<std::ptrdiff_t>(k));
          };
          const auto piece = [&](const std::vector<float>& values, std::size_t i) {
            return std::vector<float>(
                values.begin() + static_cast<std::ptrdiff_t>(i * count),
                values.begin() + static_cast<std::ptrdiff_t>((i + 1) * count));
          };
          const std::vector<float> sum = sum_of_ranks(size, count * n);
          const auto one_in = in.first(count), one_out = out.first(count);

          fill(count);
          ranks.run(all_reduce(one_in, one_out));
          EXPECT_EQ(first(out, count), sum_of_ranks(size, count));
          ranks.run(all_reduce(one_in, one_in));
          EXPECT_EQ(first(in, count), sum_of_ranks(size, count));
          fill(count * n);
          ranks.run(reduce_scatter(in, one_out));
          EXPECT_EQ(first(out, count), piece(sum, r));
          ranks.run(all_to_all(std::as_bytes(in), std::as_writable_bytes(out)));
          for (std::size_t s = 0; s < n; ++s) {
            EXPECT_EQ(piece(first(out, count * n), s),
                      piece(values_of(static_cast<int>(s), count * n), r));
          }
          fill(count);
          ranks.run(all_gather(std::as_bytes(one_in), std::as_writable_bytes(out)));
          EXPECT_EQ(first(out, count * n), ranks_in_a_row(size, count));
          std::ranges::fill(out, 0.0f);
          ranks.run(gather(std::as_bytes(one_in), std::as_writable_bytes(out), size - 1));
          if (ranks.rank() == size - 1) {
            EXPECT_EQ(first(out, count * n), ranks_in_a_row(size, count));
          }
          ranks.run(broadcast(std::as_writable_bytes(one_in), size / 2));
          EXPECT_EQ(first(in, count), values_of(size / 2, count));
        });
        EXPECT_THAT(outcomes, Each(std::string())) << size << " ranks, " << count;
      }
    }
  }
}

TEST(Communicator, WhatIsStartedIsDoneInOrderWhileTheRankGoesOn) {
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

TEST(Communicator, RanksThatCallDifferentThingsAreNamed) {
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

TEST(Communicator, SumsOfDifferentSizesAreNamed) {
  const auto outcomes = run_ranks(2, [](Communicator& ranks) {
    std::byte* const memory = ranks.share(128);
    const Part part{{0, ranks.rank()}, memory};
    ranks.run(tree_sum({&part, 1}, 0, 128, memory));
    ranks.run(tree_sum({&part, 1}, 0, ranks.is_first() ? 64 : 128, memory, "bias"));
  });
  EXPECT_THAT(outcomes, Each(HasSubstr("bytes to the sum of bias of step 0, and rank")));
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

#include <gtest/gtest.h>

#include <cmath>

#include "concord/comm/test_ranks.h"
#include "concord/runtime/leaf_sums.h"
#include "concord/runtime/round_sums.h"

namespace concord {
namespace {

constexpr Bucket kBuckets[] = {{0, 64, "first"}, {64, 64, "second"}};

// Sums that only the canonical tree gets right: adding 1 to 2^24 is lost in f32.
float tree(const std::vector<float>& leaves, std::size_t begin, std::size_t end) {
  if (end - begin == 1) return leaves[begin];
  std::size_t half = 1;
  while (half * 2 < end - begin) half *= 2;
  return tree(leaves, begin, begin + half) + tree(leaves, begin + half, end);
}

TEST(LeafSums, FollowTheCanonicalTreeForAnyNumberOfLeaves) {
  for (std::size_t count = 1; count <= 9; ++count) {
    std::vector<float> leaves;
    for (std::size_t i = 0; i < count; ++i)
      leaves.push_back(std::ldexp(1.0f + 0.1f * i, i % 2 ? 0 : 23));
    comm::Alone alone;
    LeafSums sums(128, alone, 0);
    for (int step = 0; step < 2; ++step) {
      sums.clear({});
      for (const float leaf : leaves) {
        for (const std::size_t i : {0, 31}) reinterpret_cast<float*>(sums.next())[i] = leaf;
        sums.begin_microbatch({});
        for (const Bucket& bucket : kBuckets) sums.add(bucket);
        sums.end_microbatch();
      }
      const auto* const sum = reinterpret_cast<const float*>(sums.finish(kBuckets));
      EXPECT_EQ(sum[0], tree(leaves, 0, count)) << count;
      EXPECT_EQ(sum[31], tree(leaves, 0, count)) << count;
    }
  }
}

TEST(LeafSums, MicrobatchesOfALeafAreAddedInOrder) {
  comm::Alone alone;
  LeafSums sums(128, alone, 0);
  sums.clear({});
  float expected = 0;
  for (int m = 0; m < 5; ++m) {
    const float value = std::ldexp(1.1f, 3 * m);
    reinterpret_cast<float*>(sums.next())[0] = value;
    sums.begin_microbatch({.first_of_leaf = m == 0, .last_of_leaf = m == 4});
    for (const Bucket& bucket : kBuckets) sums.add(bucket);
    sums.end_microbatch();
    expected = m == 0 ? value : expected + value;
  }
  EXPECT_EQ(reinterpret_cast<const float*>(sums.finish(kBuckets))[0], expected);
}

// Rank r of N has leaves r, r + N, ...; the last ones may be missing.
TEST(RoundSums, FollowTheCanonicalTreeAndGiveEachRankItsParts) {
  for (const int size : {2, 4}) {
    for (std::size_t count = 1; count <= 8; ++count) {
      std::vector<float> leaves;
      for (std::size_t i = 0; i < count; ++i)
        leaves.push_back(std::ldexp(1.0f + 0.1f * i, i % 2 ? 0 : 23));
      const float expected = tree(leaves, 0, count);
      comm::run_ranks("shm", size, [&](comm::Communicator& ranks) {
        const auto n = static_cast<std::size_t>(size);
        // 64 bytes that all get, then a tensor of 64 bytes for each rank.
        const std::vector<Bucket> buckets = {
            {.offset = 64, .bytes = 64 * n, .label = "b", .pieces = {{64, 64, 64}}},
            {.offset = 0, .bytes = 64, .label = "a"}};
        RoundSums sums(
            {.bytes = 64 + 64 * n, .totals_bytes = 128, .rounds = static_cast<std::int64_t>(8 / n)},
            ranks);
        for (int step = 0; step < 2; ++step) {
          sums.clear({.rounds = static_cast<std::int64_t>((count + n - 1) / n)});
          for (auto leaf = static_cast<std::size_t>(ranks.rank()); leaf < count; leaf += n) {
            std::fill_n(reinterpret_cast<float*>(sums.next()), 16 + 16 * n, leaves[leaf]);
            sums.begin_microbatch({});
            for (const Bucket& bucket : buckets) sums.add(bucket);
            sums.end_microbatch();
          }
          while (sums.awaits_others()) {
            sums.begin_standing_by();
            for (const Bucket& bucket : buckets) sums.stand_by(bucket);
            sums.end_microbatch();
          }
          const auto* const sum = reinterpret_cast<const float*>(sums.finish(buckets));
          EXPECT_EQ(sums.parts(), reinterpret_cast<const std::byte*>(sum));
          for (int i = 0; i < 32; ++i) EXPECT_EQ(sum[i], expected) << count << ' ' << i;
        }
      });
    }
  }
}

}  // namespace
}  // namespace concord

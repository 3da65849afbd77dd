#include <gtest/gtest.h>

#include <cmath>

#include "concord/runtime/leaf_sums.h"

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
      sums.clear(0);
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
  sums.clear(0);
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

}  // namespace
}  // namespace concord

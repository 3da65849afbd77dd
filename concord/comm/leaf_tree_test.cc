#include "concord/comm/leaf_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace concord::comm {
namespace {

using testing::ElementsAre;

TEST(LeafTree, ARunOfLeavesIsMadeUpOfTheLargestNodesThatFit) {
  EXPECT_THAT(subtrees_of(0, 8), ElementsAre(Subtree{3, 0}));
  EXPECT_THAT(subtrees_of(4, 8), ElementsAre(Subtree{2, 1}));
  EXPECT_THAT(subtrees_of(0, 5), ElementsAre(Subtree{2, 0}, Subtree{0, 4}));
  EXPECT_THAT(subtrees_of(3, 7), ElementsAre(Subtree{0, 3}, Subtree{1, 2}, Subtree{0, 6}));
  EXPECT_THAT(subtrees_of(3, 3), ElementsAre());
}

TEST(LeafTree, JoinsHalvesFirstAndWhatIsLeftFromTheRight) {
  const auto joins = [](const std::vector<Subtree>& nodes) {
    Joins joins;
    const std::span<const Join> order = joins.of(nodes);
    return std::vector(order.begin(), order.end());
  };
  EXPECT_THAT(joins({{0, 0}, {0, 1}, {0, 2}, {0, 3}}),
              ElementsAre(Join{0, 1}, Join{2, 3}, Join{0, 2}));
  // Seven leaves: 4 + (2 + 1).
  EXPECT_THAT(joins({{2, 0}, {1, 2}, {0, 6}}), ElementsAre(Join{1, 2}, Join{0, 1}));
  EXPECT_THAT(joins({{2, 0}}), ElementsAre());
}

// What becomes of texts that are added up in place of numbers: "((0+1)+(2+3))".
std::string sum_of(std::vector<std::string> texts, const std::vector<Subtree>& nodes) {
  Joins joins;
  for (const Join& j : joins.of(nodes))
    texts[j.into] = "(" + texts[j.into] + "+" + texts[j.from] + ")";
  return texts[0];
}

// Ranks hold the leaves up to ends[0], ends[1], ..., and add up their own first.
std::string sum_over_ranks(const std::vector<std::int64_t>& ends) {
  std::vector<Subtree> nodes;
  std::vector<std::string> texts;
  std::int64_t begin = 0;
  for (const std::int64_t end : ends) {
    for (const Subtree& node : subtrees_of(begin, end)) {
      std::vector<std::string> leaves;
      std::vector<Subtree> own;
      for (std::int64_t i = 0; i < std::int64_t{1} << node.height; ++i) {
        leaves.push_back(std::to_string((node.index << node.height) + i));
        own.push_back({0, i});
      }
      nodes.push_back(node);
      texts.push_back(sum_of(leaves, own));
    }
    begin = end;
  }
  return sum_of(texts, nodes);
}

TEST(LeafTree, TheSumDoesNotDependOnWhereTheLeavesLie) {
  for (std::int64_t leaves = 1; leaves <= 16; ++leaves) {
    const std::string expected = sum_over_ranks({leaves});
    for (std::int64_t a = 0; a <= leaves; ++a) {
      for (std::int64_t b = a; b <= leaves; ++b) {
        EXPECT_EQ(sum_over_ranks({a, b, leaves}), expected) << a << " " << b;
      }
    }
  }
  EXPECT_EQ(sum_over_ranks({3, 7}), "(((0+1)+(2+3))+((4+5)+6))");
}

}  // namespace
}  // namespace concord::comm

#include "concord/parallel/elimination.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace concord::parallel {
namespace {

struct Problem {
  std::vector<std::size_t> options;
  std::vector<Factor> factors;
};

// A ring of variables with some chords.
Problem random_problem(unsigned seed, int variables) {
  std::mt19937 random(seed);
  Problem problem;
  for (int v = 0; v < variables; ++v) problem.options.push_back(1 + random() % 4);
  const auto add = [&](std::vector<int> tied) {
    Factor factor{std::move(tied), {}};
    std::size_t size = 1;
    for (const int v : factor.variables) size *= problem.options[static_cast<std::size_t>(v)];
    for (std::size_t i = 0; i < size; ++i)
      factor.costs.push_back(static_cast<double>(random() % 100));
    problem.factors.push_back(std::move(factor));
  };
  for (int v = 0; v < variables; ++v) {
    add({v});
    add({v, (v + 1) % variables});
  }
  add({0, variables / 2, variables - 1});
  add({1, variables - 2});
  return problem;
}

double cost_of(const Problem& problem, const std::vector<std::size_t>& chosen) {
  double cost = 0;
  for (const Factor& factor : problem.factors) {
    std::size_t at = 0;
    for (const int v : factor.variables) {
      at = at * problem.options[static_cast<std::size_t>(v)] + chosen[static_cast<std::size_t>(v)];
    }
    cost += factor.costs[at];
  }
  return cost;
}

double least_cost(const Problem& problem) {
  std::vector<std::size_t> chosen(problem.options.size(), 0);
  double least = std::numeric_limits<double>::infinity();
  while (true) {
    least = std::min(least, cost_of(problem, chosen));
    std::size_t v = 0;
    while (v < chosen.size() && ++chosen[v] == problem.options[v]) chosen[v++] = 0;
    if (v == chosen.size()) return least;
  }
}

Elimination::Solution solve(const Problem& problem, std::size_t largest) {
  Elimination elimination;
  for (const std::size_t options : problem.options) elimination.add_variable(options);
  for (const Factor& factor : problem.factors) elimination.add(factor);
  return elimination.solve(largest);
}

TEST(Elimination, FindsWhatTryingEverythingFinds) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    const Problem problem = random_problem(seed, 7);
    const Elimination::Solution solution = solve(problem, 1 << 20);
    EXPECT_TRUE(solution.is_exact);
    EXPECT_EQ(solution.cost, least_cost(problem)) << seed;
    EXPECT_EQ(cost_of(problem, solution.options), solution.cost) << seed;
  }
}

TEST(Elimination, WhereTablesWouldBeTooLargeItStillChoosesAndSaysWhatThatCosts) {
  int inexact = 0;
  for (unsigned seed = 0; seed < 50; ++seed) {
    const Problem problem = random_problem(seed, 7);
    const Elimination::Solution solution = solve(problem, 4);
    inexact += solution.is_exact ? 0 : 1;
    EXPECT_EQ(cost_of(problem, solution.options), solution.cost) << seed;
    EXPECT_GE(solution.cost, least_cost(problem)) << seed;
  }
  EXPECT_GT(inexact, 10);
}

TEST(Elimination, OfEqualOptionsTheFirstIsTaken) {
  Elimination elimination;
  const int a = elimination.add_variable(3);
  elimination.add(a, {2, 1, 1});
  EXPECT_EQ(elimination.solve().options[0], 1u);
}

}  // namespace
}  // namespace concord::parallel

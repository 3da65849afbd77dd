#include "concord/comm/low_rank_sum.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "concord/comm/test_communicators.h"
#include "concord/comm/test_ranks.h"
#include "concord/tensor/relayout.h"

namespace concord::comm {
namespace {

constexpr std::int64_t kEncoders = 4;  // of one leaf each
constexpr std::int64_t kSteps = 3;

// A filter of 24 x 10 x 3 x 3 in tiles of 8 input channels, of which the last is half empty.
TensorType filter() { return {DType::kF32, {24, 10, 3, 3}}; }
Layout tiled() { return Layout(filter().shape, {16 * 9, 72, 24, 8}, {24, 16, 3, 3}, {{1, 8}}); }

float number(std::int64_t step, std::int64_t leaf, std::int64_t i) {
  return uniform01(RandomStream{.stream = static_cast<std::uint32_t>(leaf),
                                .step = static_cast<std::uint32_t>(step)}
                       .bits(static_cast<std::uint64_t>(i))) -
         0.4f;
}

// Row-major, of a leaf of a step.
using Values = std::function<float(std::int64_t step, std::int64_t leaf, std::int64_t i)>;

struct Outcome {
  std::vector<std::vector<float>> sums;  // of each step, row-major
  std::vector<float> residual;           // at the end, of all encoders of the first rank
};

Outcome sum_over(const std::string& transport, int size, const Layout& layout, int rank,
                 const Values& values, std::int64_t leaves = kEncoders) {
  std::vector<Outcome> outcomes(static_cast<std::size_t>(size));
  const TensorType type = filter();
  const auto stored = static_cast<std::size_t>(layout.stored_elements(type.shape));
  const auto numbers = static_cast<std::size_t>(type.shape.elements());
  const auto body = [&](Communicator& ranks) {
    LowRankSum sum({{.shape = type.shape, .layout = layout, .rank = rank, .stream = 5}},
                   {.rank = ranks.rank(), .ranks = ranks.size(), .count = kEncoders});
    const std::int64_t own = kEncoders / ranks.size(), first = ranks.rank() * own;
    std::vector<float> residual(static_cast<std::size_t>(own) * stored), q(90 * 8);
    sum.memories()[0] = {.own = {residual.data()}, .of_sum = {q.data()}};
    std::byte* const data = ranks.share(static_cast<std::size_t>(own) * stored * sizeof(float));
    Outcome& outcome = outcomes[static_cast<std::size_t>(ranks.rank())];
    for (std::int64_t step = 0; step < kSteps; ++step) {
      std::vector<Part> parts;
      for (std::int64_t e = first; e < std::min(first + own, leaves); ++e) {
        std::vector<float> row_major(numbers);
        for (std::size_t i = 0; i < numbers; ++i) {
          row_major[i] = values(step, e, static_cast<std::int64_t>(i));
        }
        parts.push_back({{0, e}, data + static_cast<std::size_t>(e - first) * stored * 4});
        to_layout(type, layout, reinterpret_cast<const std::byte*>(row_major.data()),
                  parts.back().data);
      }
      sum.begin(parts, step, data);
      ranks.wait(ranks.start(in_rounds(sum, "filter")));
      outcome.sums.emplace_back(numbers);
      from_layout(type, layout, data, reinterpret_cast<std::byte*>(outcome.sums.back().data()));
    }
    for (std::int64_t e = 0; e < own; ++e) {
      std::vector<float> row_major(numbers);
      from_layout(type, layout,
                  reinterpret_cast<const std::byte*>(residual.data() +
                                                     static_cast<std::size_t>(e) * stored),
                  reinterpret_cast<std::byte*>(row_major.data()));
      outcome.residual.insert(outcome.residual.end(), row_major.begin(), row_major.end());
    }
  };
  if (size == 1) {
    Alone alone;
    body(alone);
  } else {
    run_ranks(transport, size, body);
  }
  for (const Outcome& outcome : outcomes) {
    for (std::size_t s = 0; s < outcome.sums.size(); ++s) {
      expect_equal(outcome.sums[s], outcomes[0].sums[s], "another rank's sum");
    }
  }
  return outcomes[0];
}

TEST(LowRankSum, HasTheSameBitsOnAnyNumberOfRanks) {
  for (const std::int64_t leaves : {4, 3, 1}) {
    const Outcome alone = sum_over("", 1, tiled(), 4, number, leaves);
    for (const char* transport : {"shm", "gloo"}) {
      for (const int ranks : {2, 4}) {
        const Outcome outcome = sum_over(transport, ranks, tiled(), 4, number, leaves);
        for (std::size_t s = 0; s < alone.sums.size(); ++s) {
          expect_equal(outcome.sums[s], alone.sums[s],
                       fmt::format("step {} on {} ranks over {}", s, ranks, transport));
        }
      }
    }
  }
}

TEST(LowRankSum, TakesTheRowsWhateverTheLayout) {
  const Outcome plain = sum_over("", 1, Layout(), 2, number);
  const Outcome in_tiles = sum_over("", 1, tiled(), 2, number);
  for (std::size_t s = 0; s < plain.sums.size(); ++s) {
    expect_equal(in_tiles.sums[s], plain.sums[s], fmt::format("step {}", s));
  }
}

// Of rank 2: rows are multiples of two.
TEST(LowRankSum, SendsAllOfAMatrixOfItsRank) {
  const auto of_rank_2 = [](std::int64_t step, std::int64_t leaf, std::int64_t i) {
    const std::int64_t row = i / 90, column = i % 90;
    return number(step, leaf, row) * number(8, 1, column) +
           number(step, leaf, row + 50) * number(9, 2, column);
  };
  const Outcome outcome = sum_over("", 1, tiled(), 2, of_rank_2);
  for (std::int64_t step = 0; step < kSteps; ++step) {
    for (std::int64_t i = 0; i < filter().shape.elements(); ++i) {
      double sum = 0;
      for (std::int64_t leaf = 0; leaf < kEncoders; ++leaf) sum += of_rank_2(step, leaf, i);
      ASSERT_NEAR(outcome.sums[static_cast<std::size_t>(step)][static_cast<std::size_t>(i)], sum,
                  1e-4);
    }
  }
}

TEST(LowRankSum, NothingIsLost) {
  const Outcome outcome = sum_over("", 1, tiled(), 2, number);
  const std::int64_t numbers = filter().shape.elements();
  for (std::int64_t i = 0; i < numbers; ++i) {
    double given = 0, sent = 0;
    for (std::int64_t leaf = 0; leaf < kEncoders; ++leaf) {
      for (std::int64_t step = 0; step < kSteps; ++step) given += number(step, leaf, i);
      sent += outcome.residual[static_cast<std::size_t>(leaf * numbers + i)];
    }
    for (const std::vector<float>& sums : outcome.sums) sent += sums[static_cast<std::size_t>(i)];
    ASSERT_NEAR(sent, given, 1e-5) << i;
  }
}

// The same gradient again and again: factors of the step before are those of this one, so that what
// is found is the best there is of the rank (the subspace iteration converges).
TEST(LowRankSum, IsLessWrongWithEachStepOfTheSameGradient) {
  const auto same = [](std::int64_t, std::int64_t leaf, std::int64_t i) {
    return number(0, leaf, i);
  };
  const Outcome outcome = sum_over("", 1, Layout(), 4, same);
  std::vector<double> errors;
  std::vector<double> sums(outcome.sums[0].size());
  for (std::size_t step = 0; step < outcome.sums.size(); ++step) {
    double error = 0;
    for (std::size_t i = 0; i < sums.size(); ++i) {
      sums[i] += outcome.sums[step][i];
      double given = 0;
      for (std::int64_t leaf = 0; leaf < kEncoders; ++leaf) {
        given += same(0, leaf, static_cast<std::int64_t>(i));
      }
      error += std::pow(sums[i] / static_cast<double>(step + 1) - given, 2);
    }
    errors.push_back(error);
  }
  EXPECT_LT(errors[1], errors[0]);
  EXPECT_LT(errors[2], errors[1]);
}

// After a matrix of rank 1, one of rank 2 is found again.
TEST(LowRankSum, FindsARankThatWasNotThereBefore) {
  const auto rank_grows = [](std::int64_t step, std::int64_t leaf, std::int64_t i) {
    const std::int64_t row = i / 90, column = i % 90;
    return number(0, leaf, row) * number(8, 1, column) +
           (step == 0 ? 0 : number(1, leaf, row + 50) * number(9, 2, column));
  };
  const Outcome outcome = sum_over("", 1, tiled(), 2, rank_grows);
  for (std::int64_t i = 0; i < filter().shape.elements(); ++i) {
    double sum = 0;
    for (std::int64_t step = 0; step < kSteps; ++step) {
      for (std::int64_t leaf = 0; leaf < kEncoders; ++leaf) sum += rank_grows(step, leaf, i);
      sum -= outcome.sums[static_cast<std::size_t>(step)][static_cast<std::size_t>(i)];
    }
    ASSERT_NEAR(sum, 0, 1e-4) << i;
  }
}

TEST(LowRankSum, WhatIsNotFiniteIsSentAsThat) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    const auto breaks = [&](std::int64_t step, std::int64_t leaf, std::int64_t i) {
      return step == 1 && leaf == 2 && i == 77 ? bad : number(step, leaf, i);
    };
    // Alone, and where another rank has it.
    for (const int ranks : {1, 4}) {
      const Outcome outcome = sum_over("gloo", ranks, tiled(), 2, breaks);
      for (const float one : outcome.sums[1]) ASSERT_TRUE(std::isnan(one));
      for (const float one : outcome.sums[2]) ASSERT_TRUE(std::isfinite(one));
    }
  }
}

TEST(LowRankSum, ColumnsThatOthersSpanAreZeros) {
  std::vector<float> matrix = {1,  2,  0, 3, 6, 1,
                               -2, -4, 0, 0, 0, 0};  // [4, 3], the second 2 x the first
  orthonormalize(matrix, 4, 3);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(matrix[static_cast<std::size_t>(3 * i + 1)], 0);
  for (const int a : {0, 2}) {
    for (const int b : {0, 2}) {
      double dot = 0;
      for (int i = 0; i < 4; ++i) {
        dot += double{matrix[static_cast<std::size_t>(3 * i + a)]} *
               double{matrix[static_cast<std::size_t>(3 * i + b)]};
      }
      EXPECT_NEAR(dot, a == b ? 1 : 0, 1e-6);
    }
  }
}

}  // namespace
}  // namespace concord::comm

// The orders of pipeline schedules, and that they cost what their papers say.
#include "concord/parallel/schedule.h"

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <tuple>

#include "concord/base/error.h"
#include "concord/base/file.h"

namespace concord::parallel {
namespace {

constexpr int kMostRanks = 8, kMostChunks = 4, kMostMicrobatches = 32;

bool fits(const Pipeline& pipeline) {
  switch (pipeline.schedule) {
    case Schedule::kInterleaved:
      return pipeline.chunks >= 2 && pipeline.microbatches % pipeline.ranks == 0;
    case Schedule::kZbV:
      return pipeline.chunks == 2;
    case Schedule::kPipeDream2Bw:
      return pipeline.chunks == 1 && pipeline.microbatches >= pipeline.ranks;
    default:
      return pipeline.chunks == 1;
  }
}

std::vector<Pipeline> all_pipelines() {
  std::vector<Pipeline> all;
  for (const std::string_view name : schedule_names()) {
    for (int p = 1; p <= kMostRanks; ++p) {
      for (int v = 1; v <= kMostChunks; ++v) {
        for (int m = 1; m <= kMostMicrobatches; ++m) {
          all.push_back({find_schedule(name).value(), p, v, m});
        }
      }
    }
  }
  return all;
}

std::vector<Pipeline> fitting_pipelines() {
  std::vector<Pipeline> all = all_pipelines();
  std::erase_if(all, std::not_fn(fits));
  return all;
}

std::string text(const Pipeline& p) {
  return fmt::format("{}: p = {}, v = {}, m = {}", name_of(p.schedule), p.ranks, p.chunks,
                     p.microbatches);
}

Replay replay_with(const Pipeline& pipeline, const StageCosts& each, double message = 0) {
  return replay(pipeline,
                std::vector<StageCosts>(static_cast<std::size_t>(pipeline.stages()), each),
                message);
}

std::string message_of(const Pipeline& pipeline) {
  try {
    check_pipeline(pipeline);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Schedule, NamesFindTheirSchedules) {
  EXPECT_EQ(schedule_names().size(), 8U);
  for (const std::string_view name : schedule_names()) {
    ASSERT_TRUE(find_schedule(name)) << name;
    EXPECT_EQ(name_of(*find_schedule(name)), name);
  }
  EXPECT_EQ(find_schedule("1f1b"), Schedule::k1F1B);
  EXPECT_EQ(find_schedule("pipedream-2bw"), Schedule::kPipeDream2Bw);
  EXPECT_EQ(find_schedule("1F1B"), std::nullopt);
}

TEST(Schedule, WhatDoesNotFitIsRefused) {
  for (const Pipeline& pipeline : all_pipelines()) {
    const std::string message = message_of(pipeline);
    EXPECT_EQ(message.empty(), fits(pipeline)) << text(pipeline) << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(Schedule, ErrorsSayWhatToDo) {
  EXPECT_EQ(message_of({Schedule::kInterleaved, 4, 2, 6}),
            "pipeline interleaved: 6 microbatches on 4 ranks, expected a multiple of the ranks; "
            "change either or choose 1f1b");
  EXPECT_EQ(message_of({Schedule::kInterleaved, 4, 1, 8}),
            "pipeline interleaved: 1 chunk for each rank, expected 2 or more; choose 1f1b for one");
  EXPECT_EQ(message_of({Schedule::k1F1B, 4, 2, 8}),
            "pipeline 1f1b: 2 chunks for each rank, expected 1; choose interleaved for others");
  EXPECT_EQ(message_of({Schedule::kPipeDream2Bw, 4, 1, 3}),
            "pipeline pipedream-2bw: 3 microbatches on 4 ranks, expected as many as ranks or more; "
            "make them smaller or choose pipedream");
  EXPECT_EQ(message_of({Schedule::kGPipe, 4, 1, 0}),
            "pipeline gpipe: 4 ranks, 1 chunks, 0 microbatches: expected 1 or more of each");
  EXPECT_EQ(message_of({Schedule::kInterleaved, 65536, 65536, 65536}),
            "pipeline interleaved: 65536 ranks of 65536 chunks, expected at most 65536 stages");
}

TEST(Schedule, EveryStageHasOnePlace) {
  for (const Pipeline& pipeline : fitting_pipelines()) {
    std::set<int> stages;
    for (int rank = 0; rank < pipeline.ranks; ++rank) {
      for (int chunk = 0; chunk < pipeline.chunks; ++chunk) {
        const int stage = stage_of(pipeline, rank, chunk);
        EXPECT_EQ(place_of(pipeline, stage), std::pair(rank, chunk)) << text(pipeline);
        stages.insert(stage);
      }
    }
    EXPECT_EQ(stages.size(), static_cast<std::size_t>(pipeline.stages())) << text(pipeline);
  }
  EXPECT_EQ(stage_of({Schedule::kInterleaved, 4, 2, 8}, 1, 1), 5);
  EXPECT_EQ(stage_of({Schedule::kZbV, 4, 2, 8}, 0, 1), 7);
  EXPECT_EQ(stage_of({Schedule::kZbV, 4, 2, 8}, 3, 1), 4);
}

TEST(Schedule, EveryActionIsDoneOnceAndInOrder) {
  for (const Pipeline& pipeline : fitting_pipelines()) {
    for (int rank = 0; rank < pipeline.ranks; ++rank) {
      std::set<std::tuple<Half, int, std::int64_t>> done;
      std::map<std::pair<int, Half>, std::int64_t> next;
      for (const Action& action : actions_of(pipeline, rank)) {
        const auto& [half, chunk, microbatch] = action;
        EXPECT_EQ((next[{chunk, half}]++), microbatch) << text(pipeline);
        if (half == Half::kBackward) {
          EXPECT_TRUE(done.contains({Half::kForward, chunk, microbatch})) << text(pipeline);
        }
        if (half == Half::kWeights) {
          EXPECT_TRUE(done.contains({Half::kBackward, chunk, microbatch})) << text(pipeline);
        }
        EXPECT_TRUE(done.insert({half, chunk, microbatch}).second) << text(pipeline);
      }
      const std::int64_t halves = splits_backward(pipeline.schedule) ? 3 : 2;
      EXPECT_EQ(static_cast<std::int64_t>(done.size()),
                halves * pipeline.chunks * pipeline.microbatches)
          << text(pipeline);
      EXPECT_EQ(static_cast<int>(next.size()), halves * pipeline.chunks) << text(pipeline);
    }
  }
}

// What a paper says, and its row of the table in docs/pipeline.md.
struct Row {
  Schedule schedule;
  std::string bubble_text;
  std::function<double(double p, double v, double m)> bubble;
  std::string in_flight_text;
  std::function<std::int64_t(std::int64_t p, std::int64_t v, std::int64_t m, std::int64_t r)>
      in_flight;
  std::string staleness_text;
  // The bubble of zb-h1 is for p microbatches or more; all of zb-v for 2 p - 1.
  std::function<std::int64_t(std::int64_t p)> fewest = [](std::int64_t) { return 1; };
};

std::vector<Row> rows() {
  const auto flushed = [](double p, double, double m) { return (p - 1) / m; };
  const auto of_1f1b = [](std::int64_t p, std::int64_t, std::int64_t m, std::int64_t r) {
    return std::min(m, p - r);
  };
  return {
      {Schedule::kSequential, "p - 1", [](double p, double, double) { return p - 1; }, "1",
       [](auto, auto, auto, auto) { return 1; }, "0"},
      {Schedule::kGPipe, "(p - 1) / m", flushed, "m",
       [](auto, auto, std::int64_t m, auto) { return m; }, "0"},
      {Schedule::k1F1B, "(p - 1) / m", flushed, "min(m, p - r)", of_1f1b, "0"},
      {Schedule::kInterleaved, "(p - 1) / (v m)",
       [](double p, double v, double m) { return (p - 1) / (v * m); },
       "min(v m, 2 (p - 1 - r) + (v - 1) p + 1)",
       [](std::int64_t p, std::int64_t v, std::int64_t m, std::int64_t r) {
         return std::min(v * m, 2 * (p - 1 - r) + (v - 1) * p + 1);
       },
       "0"},
      {Schedule::kZbH1, "(p - 1) / (3 m)",
       [](double p, double, double m) { return (p - 1) / (3 * m); }, "min(m, p)",
       [](std::int64_t p, auto, std::int64_t m, auto) { return std::min(m, p); }, "0",
       [](std::int64_t p) { return p; }},
      {Schedule::kZbV, "(p - 1) / (6 m)",
       [](double p, double, double m) { return (p - 1) / (6 * m); }, "2 p",
       [](std::int64_t p, auto, auto, auto) { return 2 * p; }, "0",
       [](std::int64_t p) { return 2 * p - 1; }},
      {Schedule::kPipeDream, "(p - 1) / M", flushed, "min(M, p - r)", of_1f1b,
       "p - 1 - r microbatches"},
      {Schedule::kPipeDream2Bw, "(p - 1) / M", flushed, "min(M, p - r)", of_1f1b, "1 step"},
  };
}

TEST(Schedule, BubblesAndActivationsAreThoseOfThePapers) {
  std::map<Schedule, Row> papers;
  for (const Row& row : rows()) papers.emplace(row.schedule, row);
  for (const Pipeline& pipeline : fitting_pipelines()) {
    const Row& row = papers.at(pipeline.schedule);
    const auto& [schedule, p, v, m, vertical_sync] = pipeline;
    if (m < row.fewest(p)) continue;
    const Replay step = replay_with(pipeline, {});
    EXPECT_DOUBLE_EQ(step.bubble(), row.bubble(p, v, static_cast<double>(m))) << text(pipeline);
    for (int rank = 0; rank < p; ++rank) {
      EXPECT_EQ(step.most_in_flight[static_cast<std::size_t>(rank)], row.in_flight(p, v, m, rank))
          << text(pipeline) << ", rank " << rank;
    }
  }
}

TEST(Schedule, TheTableOfTheDocumentationIsComputed) {
  const std::string page = read_file(CONCORD_SOURCE_DIR "/docs/pipeline.md");
  for (const Row& row : rows()) {
    const Pipeline pipeline{row.schedule, 4, fewest_chunks(row.schedule), 8};
    const Replay step = replay_with(pipeline, {});
    const std::string line =
        fmt::format("| `{}` | {} | {} | {} | {} | {} |\n", name_of(row.schedule), row.bubble_text,
                    step.bubble(), row.in_flight_text, fmt::join(step.most_in_flight, ", "),
                    row.staleness_text);
    EXPECT_NE(page.find(line), std::string::npos) << "expected in docs/pipeline.md: " << line;
  }
}

// The idle time of Huang et al. 2019, Narayanan et al. 2021 and Qi et al. 2023, whatever passes
// cost; of zb-h1, as long as the gradients of weights take no longer than those of inputs. Of zb-v
// the papers say it for equal costs; for others it is at most half of the idle time of 1f1b, whose
// stages are twice as long.
TEST(Schedule, IdleTimeFollowsTheCosts) {
  for (const StageCosts& cost : {StageCosts{1, 1, 1}, {2, 3, 2}, {2, 2, 1}, {4, 5, 4}, {1, 2, 1}}) {
    const auto& [f, b, w] = cost;
    for (const Pipeline& pipeline : fitting_pipelines()) {
      const auto p = static_cast<double>(pipeline.ranks);
      const auto m = static_cast<double>(pipeline.microbatches);
      const Replay step = replay_with(pipeline, cost);
      for (const double busy : step.busy) EXPECT_EQ(busy, pipeline.chunks * m * (f + b + w));
      const double idle = step.seconds - step.busy[0];
      switch (pipeline.schedule) {
        case Schedule::kSequential:
          EXPECT_EQ(idle, (p - 1) * m * (f + b + w)) << text(pipeline);
          break;
        case Schedule::kZbH1:
          EXPECT_EQ(idle, (p - 1) * (f + b - w) + std::max(0.0, p - m) * w) << text(pipeline);
          break;
        case Schedule::kZbV:
          if (m < 2 * p - 1) break;
          EXPECT_LE(idle, (p - 1) * (f + b + w)) << text(pipeline);
          break;
        default:
          EXPECT_EQ(idle, (p - 1) * (f + b + w)) << text(pipeline);
      }
    }
  }
}

// Qi et al. 2023: zero bubbles but for the staggered start, since no rank waits once it has begun.
TEST(Schedule, RanksOfZbVComputeWithoutAPause) {
  for (int p = 1; p <= kMostRanks; ++p) {
    for (int m = 2 * p - 1; m <= kMostMicrobatches; ++m) {
      const Replay step = replay_with({Schedule::kZbV, p, 2, m}, {});
      for (int rank = 0; rank < p; ++rank) {
        const auto& times = step.times[static_cast<std::size_t>(rank)];
        EXPECT_EQ(times.front().begin, rank);
        EXPECT_EQ(times.back().end, rank + 6 * m) << "p = " << p << ", m = " << m;
      }
    }
  }
}

// Where there are fewer microbatches than the papers' formulas are for.
TEST(Schedule, FewMicrobatchesKeepTheBoundsOfMemoryAndTime) {
  for (const Pipeline& pipeline : fitting_pipelines()) {
    if (!splits_backward(pipeline.schedule)) continue;
    const auto& [schedule, p, v, m, vertical_sync] = pipeline;
    const Replay step = replay_with(pipeline, {});
    for (const std::int64_t most : step.most_in_flight) {
      EXPECT_LE(most, v * std::min<std::int64_t>(m, p)) << text(pipeline);
    }
    // A stage of two chunks takes twice as long.
    const double scale = v;
    const Replay simple = replay_with({Schedule::k1F1B, p, 1, m}, {scale, scale, scale});
    EXPECT_LE(step.seconds, simple.seconds) << text(pipeline);
  }
}

TEST(Schedule, StalenessIsThatOfTheOrder) {
  constexpr int kSteps = 4;
  for (int p = 1; p <= kMostRanks; ++p) {
    for (int m = p; m <= 2 * kMostRanks; ++m) {
      for (int rank = 0; rank < p; ++rank) {
        // The updates that are done when the forward of each microbatch is.
        std::vector<std::int64_t> before;
        std::int64_t backwards = 0, most = 0;
        const Pipeline pipedream{Schedule::kPipeDream, p, 1, kSteps * m};
        for (const Action& action : actions_of(pipedream, rank)) {
          if (action.half == Half::kForward) {
            before.push_back(backwards);
          } else {
            most =
                std::max(most, backwards++ - before[static_cast<std::size_t>(action.microbatch)]);
          }
        }
        EXPECT_EQ(most, staleness(pipedream, rank));
        // With updates by step: the weights before the last update are always there.
        const Pipeline by_step{Schedule::kPipeDream2Bw, p, 1, kSteps * m};
        EXPECT_EQ(actions_of(by_step, rank), actions_of(pipedream, rank));
        std::int64_t most_steps = 0;
        for (int k = 0; k < kSteps * m; ++k) {
          most_steps = std::max(most_steps, k / m - before[static_cast<std::size_t>(k)] / m);
        }
        EXPECT_LE(most_steps, staleness(by_step, rank));
      }
    }
  }
  EXPECT_EQ(staleness({Schedule::kPipeDream, 4, 1, 8}, 0), 3);
  EXPECT_EQ(staleness({Schedule::kPipeDream, 4, 1, 8, /*vertical_sync=*/true}, 3), 3);
  EXPECT_EQ(staleness({Schedule::kPipeDream2Bw, 4, 1, 8}, 0), 1);
  EXPECT_EQ(staleness({Schedule::k1F1B, 4, 1, 8}, 0), 0);
}

TEST(Replay, ActionsStartWhenTheirRankIsFreeAndTheirInputsAreThere) {
  const Replay step =
      replay_with({Schedule::k1F1B, 2, 1, 2}, {.forward = 1, .backward = 2, .weights = 1}, 0.5);
  // Rank 0: F0 F1 B0 B1; rank 1: F0 B0 F1 B1.
  const std::vector<std::vector<double>> expected{{0, 1, 6, 10}, {1.5, 2.5, 5.5, 6.5}};
  for (std::size_t rank = 0; rank < 2; ++rank) {
    for (std::size_t k = 0; k < 4; ++k) {
      EXPECT_EQ(step.times[rank][k].begin, expected[rank][k]) << rank << ", " << k;
    }
  }
  EXPECT_EQ(step.seconds, 13);
  EXPECT_EQ(step.busy, std::vector<double>({8, 8}));
}

TEST(Replay, MessagesTakeTheirTime) {
  for (int p = 1; p <= kMostRanks; ++p) {
    for (int m = 1; m <= kMostMicrobatches; ++m) {
      const double messages = 2 * (p - 1) * 0.25;  // there and back
      EXPECT_EQ(replay_with({Schedule::kSequential, p, 1, m}, {}, 0.25).seconds,
                m * (3 * p + messages));
      EXPECT_EQ(replay_with({Schedule::kGPipe, p, 1, m}, {}, 0.25).seconds,
                3 * (m + p - 1) + messages);
      // Not between the two chunks of one rank.
      EXPECT_EQ(replay_with({Schedule::kZbV, p, 2, 1}, {}, 0.25).seconds, 4 * p + 2 + 2 * messages);
    }
  }
}

// Each pass of GPipe takes as long as one microbatch, and for each of the others as the slowest
// stage.
TEST(Replay, TheSlowestStageCounts) {
  const std::vector<StageCosts> stages{{1, 2, 0}, {3, 1, 1}, {2, 3, 2}, {1, 1, 0}};
  for (int m = 1; m <= kMostMicrobatches; ++m) {
    const Pipeline pipeline{Schedule::kGPipe, 4, 1, m};
    const Replay step = replay(pipeline, stages);
    EXPECT_EQ(step.seconds, 7 + (m - 1) * 3 + 10 + (m - 1) * 5);
    EXPECT_EQ(step.busy, std::vector<double>({3.0 * m, 5.0 * m, 7.0 * m, 2.0 * m}));
    EXPECT_DOUBLE_EQ(step.bubble(), (4 * step.seconds - 17 * m) / (17 * m));
  }
}

TEST(ReplayDeathTest, OrdersThatWaitForEachOtherAreABrokenInvariant) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Pipeline pipeline{Schedule::k1F1B, 2, 1, 2};
  // Rank 0 wants a gradient of a microbatch that it has not sent yet.
  const std::vector<std::vector<Action>> orders{{{Half::kForward, 0, 0},
                                                 {Half::kBackward, 0, 1},
                                                 {Half::kForward, 0, 1},
                                                 {Half::kBackward, 0, 0}},
                                                actions_of(pipeline, 1)};
  EXPECT_DEATH(replay(pipeline, orders, std::vector<StageCosts>(2)),
               "deadlock of 1f1b with p = 2, v = 1, m = 2: rank 0 waits for its backward of "
               "microbatch 1, chunk 0");
}

}  // namespace
}  // namespace concord::parallel

#include "concord/runtime/simulation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace concord {
namespace {

using Kind = comm::Operation::Kind;
using EventKind = TimelineEvent::Kind;

// What a test writes down of a rank.
class Script {
 public:
  Script& compute(double alone, double crowded) {
    timeline_.events.push_back({.kind = EventKind::kCompute, .cost = {alone, crowded}});
    return *this;
  }
  Script& compute(double seconds) { return compute(seconds, seconds); }
  Script& start(TimelineOperation operation) {
    timeline_.operations.push_back(std::move(operation));
    timeline_.events.push_back(
        {.kind = EventKind::kStart, .operation = timeline_.operations.size() - 1});
    return *this;
  }
  Script& await() {
    timeline_.events.push_back(
        {.kind = EventKind::kAwait, .operation = timeline_.operations.size() - 1});
    return *this;
  }
  Script& sum() { return start({.group = "data", .kind = Kind::kTreeSum, .bytes = 4}); }
  Script& message(bool is_send, int from, int to) {
    return start({.group = "forward",
                  .kind = is_send ? Kind::kSend : Kind::kReceive,
                  .from = from,
                  .to = to,
                  .is_send = is_send});
  }
  const Timeline& timeline() const { return timeline_; }

 private:
  Timeline timeline_;
};

double two_seconds(const TimelineOperation&, const SimulatedRank&) { return 2; }

TEST(Simulation, AnOperationBeginsWhenTheLastOfItsRanksHasCome) {
  Script fast, slow;
  fast.compute(1).sum().await();
  slow.compute(5).sum().await();
  const SimulatedRank ranks[] = {{.timeline = &fast.timeline(), .rank = 0, .column = 0, .host = 0},
                                 {.timeline = &slow.timeline(), .rank = 1, .column = 1, .host = 1}};
  const Simulation result = simulate(ranks, two_seconds);
  EXPECT_DOUBLE_EQ(result.step_seconds, 5 + 2);
  EXPECT_DOUBLE_EQ(result.ranks[0].compute, 1);
  EXPECT_DOUBLE_EQ(result.ranks[0].waited, 4 + 2);
  EXPECT_DOUBLE_EQ(result.ranks[1].waited, 2);
}

TEST(Simulation, RanksAlongTensorMeetInTheirGroupAlone) {
  Script scripts[4];
  SimulatedRank ranks[4];
  for (int r = 0; r < 4; ++r) {
    scripts[r].compute(r + 1);
    scripts[r].start({.group = "tensor", .kind = Kind::kAllReduce, .bytes = 4}).await();
    ranks[r] = {
        .timeline = &scripts[r].timeline(), .rank = r, .column = r / 2, .slice = r % 2, .host = r};
  }
  const Simulation result = simulate(ranks, two_seconds);
  EXPECT_DOUBLE_EQ(result.ranks[0].waited, 1 + 2);  // for rank 1
  EXPECT_DOUBLE_EQ(result.ranks[2].waited, 1 + 2);  // for rank 3
  EXPECT_DOUBLE_EQ(result.ranks[3].waited, 2);
}

TEST(Simulation, WhatGoesOnTakesACoreOfTheRankOrASpareOne) {
  for (const bool spare : {false, true}) {
    Script script;
    script.compute(1).sum().compute(3).await();
    const SimulatedRank ranks[] = {
        {.timeline = &script.timeline(), .ranks = 2, .has_spare_core = spare}};
    EXPECT_DOUBLE_EQ(simulate(ranks, two_seconds).step_seconds, spare ? 4 : 4 + 2);
  }
}

TEST(Simulation, RanksOfAHostThatComputeAtOnceMakeEachOtherSlower) {
  Script one;
  one.compute(1, 3);
  Script other;
  other.compute(1, 3);
  const auto seconds = [&](int host, std::int64_t folded) {
    const SimulatedRank ranks[] = {
        {.timeline = &one.timeline(), .ranks = folded},
        {.timeline = &other.timeline(), .rank = 1, .column = 1, .host = host}};
    return simulate(std::span(ranks).first(folded == 2 ? 1 : 2), two_seconds).step_seconds;
  };
  EXPECT_DOUBLE_EQ(seconds(/*host=*/1, 1), 1);  // each has its own
  EXPECT_DOUBLE_EQ(seconds(/*host=*/1, 2), 3);  // two that are folded share theirs
}

TEST(Simulation, AMessageIsReadWhenItHasCome) {
  Script first, last;
  first.compute(3).message(true, 0, 1).compute(4).await();
  last.message(false, 0, 1).await().compute(1);
  const SimulatedRank ranks[] = {
      {.timeline = &first.timeline(), .rank = 0, .row = 0, .host = 0, .has_spare_core = true},
      {.timeline = &last.timeline(), .rank = 1, .row = 1, .host = 1, .has_spare_core = true}};
  const Simulation result = simulate(ranks, two_seconds, /*traced=*/true);
  // The last computes a step while the first is at the next.
  EXPECT_DOUBLE_EQ(result.ranks[0].compute, 7);
  EXPECT_DOUBLE_EQ(result.ranks[1].compute, 1);
  EXPECT_DOUBLE_EQ(result.step_seconds, 7);
  ASSERT_EQ(result.trace.size(), 2U);
  EXPECT_THAT(result.trace[1], testing::SizeIs(2));  // the message, and what is computed
}

}  // namespace
}  // namespace concord

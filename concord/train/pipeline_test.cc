#include "concord/train/pipeline.h"

#include <gtest/gtest.h>

#include "concord/parallel/stages.h"

namespace concord::train {
namespace {

using parallel::Half;
using parallel::Schedule;

parallel::Plan plan_for(int ranks, Schedule schedule) {
  return {.mesh = {{{"pipe", ranks}}},
          .schedule = schedule,
          .chunks = parallel::fewest_chunks(schedule)};
}

TEST(PipelineOrder, MemoryIsForTheMicrobatchesInFlight) {
  constexpr int kRanks = 4;
  for (int rank = 0; rank < kRanks; ++rank) {
    const PipelineOrder gpipe = order_of_steps(plan_for(kRanks, Schedule::kGPipe), rank, 8);
    const PipelineOrder one = order_of_steps(plan_for(kRanks, Schedule::k1F1B), rank, 8);
    EXPECT_EQ(most_at_once(gpipe.own, 0, 1), 8);
    EXPECT_EQ(most_at_once(one.own, 0, 1), kRanks - rank);
  }
}

// What the last stage sends the first, which reads it when it comes to the same microbatch.
TEST(PipelineOrder, MessagesThatWaitForLongHaveMemoryUntilThen) {
  const auto plan = plan_for(4, Schedule::k1F1B);
  const PipelineOrder first = order_of_steps(plan, 0, 8);
  const int backward = parallel::half_index(plan, Half::kBackward, 0);
  // The last stage's backward pass of microbatch 0 comes before the first's, no other has to.
  EXPECT_EQ(most_on_their_way(first, 3, backward, backward, backward), 1);
  const auto all_forward = plan_for(4, Schedule::kGPipe);
  EXPECT_EQ(most_on_their_way(order_of_steps(all_forward, 0, 8), 3, /*sender_half=*/0, backward,
                              backward),
            8);
}

// As many as there are, in order, whatever the schedule would take.
TEST(PipelineOrder, AShorterStepLeavesSomeOut) {
  const auto plan = plan_for(2, Schedule::kInterleaved);
  for (const std::int64_t microbatches : {1, 2, 3, 5}) {
    const PipelineOrder order = order_of_steps(plan, 1, microbatches);
    EXPECT_EQ(std::ssize(order.own), 4 * microbatches);
    for (int half = 0; half < 4; ++half) {
      std::int64_t next = 0;
      for (const Turn& turn : order.own) {
        if (turn.half != half) continue;
        EXPECT_EQ(turn.microbatch, next++);
      }
      EXPECT_EQ(next, microbatches);
    }
  }
}

}  // namespace
}  // namespace concord::train

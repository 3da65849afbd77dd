// Pipeline schedules: in which order a rank along "pipe" computes the parts of its microbatches.
//
// The layers of a model are cut into stages. Each of the p ranks has v chunks, each of which is one
// stage, and the m microbatches of a step pass through all p v stages forwards and then backwards.
// Whatever the schedule, the microbatches of a chunk go forwards in the order 0, 1, 2, ..., and so
// do their backward halves and the gradients of the weights: gradients are added up in one order.
//
//   sequential    one microbatch at a time: layer-wise model parallelism
//   gpipe         all forwards, then all backwards. Huang et al. 2019, "GPipe: Efficient training
//                 of giant neural networks using pipeline parallelism". It goes backwards from the
//                 last microbatch; here from the first.
//   1f1b          backwards as early as can be, one forward for one backward, a flush after each
//                 step (PipeDream-Flush). Narayanan et al. 2021, "Memory-efficient
//                 pipeline-parallel DNN training".
//   interleaved   1F1B where a rank has several chunks, so that a pass goes around the ranks v
//                 times. Narayanan et al. 2021, "Efficient large-scale language model training on
//                 GPU clusters using Megatron-LM", section 2.2.
//   zb-h1         1F1B with the backward pass in two halves: the gradients of the weights, for
//                 which nobody waits, fill the end. Qi et al. 2023, "Zero bubble pipeline
//                 parallelism", section 2.1.
//   zb-v          the same with two chunks, of which the second lies in the opposite direction, so
//                 that the first rank has the first stage and the last. Qi et al. 2023, section 6;
//                 the shape is one of those of Qi et al. 2024, "Pipeline parallelism with
//                 controllable memory".
//   pipedream     1F1B without a flush, an update after each microbatch, which is all that a step
//                 has. Narayanan et al. 2019, "PipeDream: Generalized pipeline parallelism for DNN
//                 training" (with weight stashing, and on request vertical sync).
//   pipedream-2bw the same, an update after each step, and two versions of the weights. Narayanan
//                 et al. 2021, "Memory-efficient pipeline-parallel DNN training" (double-buffered
//                 weight updates).
//
// docs/pipeline.md has the table of what they cost. Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace concord::parallel {

enum class Schedule : std::uint8_t {
  kSequential,
  kGPipe,
  k1F1B,
  kInterleaved,
  kZbH1,
  kZbV,
  kPipeDream,
  kPipeDream2Bw
};

// "sequential", "gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "pipedream", "pipedream-2bw".
std::optional<Schedule> find_schedule(std::string_view name);
std::string_view name_of(Schedule schedule);
std::span<const std::string_view> schedule_names();

// kBackward: all of it, or where the schedule splits it the gradients of the inputs alone.
// kWeights: the gradients of the weights.
enum class Half : std::uint8_t { kForward, kBackward, kWeights };

struct Action {
  Half half = Half::kForward;
  int chunk = 0;  // of the rank
  std::int64_t microbatch = 0;
  friend bool operator==(const Action&, const Action&) = default;
};

// "backward of microbatch 3, chunk 0".
std::string to_string(const Action& action);

struct Pipeline {
  Schedule schedule = Schedule::k1F1B;
  int ranks = 1;                  // p
  int chunks = 1;                 // v, of each rank
  std::int64_t microbatches = 1;  // m, of one step
  bool vertical_sync = false;     // pipedream: all stages take the weights that the first one has
  int stages() const { return ranks * chunks; }
};

// The fewest chunks of a rank that the schedule has: 2 of interleaved, which takes more, and of
// zb-v, else 1.
int fewest_chunks(Schedule schedule);

// Throws Error for what does not fit: another number of chunks than the schedule has, microbatches
// that are no multiple of the ranks (interleaved) or fewer than they (pipedream-2bw, whose two
// versions of the weights would not do), numbers below 1, more than 65536 stages. The functions
// below take pipelines that pass.
void check_pipeline(const Pipeline& pipeline);

// Whether steps follow each other without a flush, so that gradients are stale: pipedream,
// pipedream-2bw.
bool is_asynchronous(Schedule schedule);

// Whether kWeights are actions of their own: zb-h1, zb-v.
bool splits_backward(Schedule schedule);

// interleaved: stage chunk * ranks + rank. zb-v: rank, and 2 ranks - 1 - rank for chunk 1.
int stage_of(const Pipeline& pipeline, int rank, int chunk);
// Rank and chunk.
std::pair<int, int> place_of(const Pipeline& pipeline, int stage);

// What a rank does in one step, in this order. For pipedream and pipedream-2bw, which do not stop
// between steps, `microbatches` may be those of any number of steps: the order is one 1F1B over
// all of them.
std::vector<Action> actions_of(const Pipeline& pipeline, int rank);

// How many updates of the weights lie at most between the forward of a microbatch at a stage and
// the update by that microbatch. pipedream, in microbatches: stages - 1 - stage (the backward pass
// takes the weights of the forward pass, which the rank keeps), with vertical sync stages - 1.
// pipedream-2bw, in steps: 1, whatever the number of stages. Else 0.
std::int64_t staleness(const Pipeline& pipeline, int stage);

// Seconds that a microbatch takes at a stage. Where the schedule does not split the backward pass,
// it takes backward + weights.
struct StageCosts {
  double forward = 1;
  double backward = 1;
  double weights = 1;
};

struct Interval {
  double begin = 0;  // seconds from the start of the step
  double end = 0;
};

struct Replay {
  double seconds = 0;        // until the last rank is done
  std::vector<double> busy;  // seconds that each rank computes
  // Microbatches of which each rank has activations at once, at most: from the beginning of the
  // forward to the end of the last half, one for each chunk that a microbatch is in.
  std::vector<std::int64_t> most_in_flight;
  std::vector<std::vector<Interval>> times;  // of each rank's actions
  // Idle time over time spent computing, of all ranks together: the literature's (p - 1) / m. The
  // share of the step that is idle would be bubble / (1 + bubble).
  double bubble() const;
};

// A step in virtual time: each action starts when its rank is free and what it reads has come.
// `stages` has the costs of each stage; what a stage of another rank reads comes
// `seconds_per_message` after it was computed, and any number of messages travel at once.
Replay replay(const Pipeline& pipeline, std::span<const StageCosts> stages,
              double seconds_per_message = 0);
// The same of other orders than the schedule's, one for each rank. Orders in which ranks wait for
// each other forever are a broken invariant.
Replay replay(const Pipeline& pipeline, std::span<const std::vector<Action>> orders,
              std::span<const StageCosts> stages, double seconds_per_message = 0);

}  // namespace concord::parallel

#include "concord/parallel/schedule.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "concord/base/error.h"

namespace concord::parallel {
namespace {

constexpr std::array<std::string_view, 8> kNames{
    "sequential", "gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "pipedream", "pipedream-2bw"};
constexpr int kMostStages = 65536;

// The actions of one rank. Each half of each chunk takes the microbatches in order, so that an
// action is said by its half and chunk alone; past the last microbatch it is counted, but is none.
class Order {
 public:
  explicit Order(const Pipeline& pipeline)
      : microbatches_(pipeline.microbatches), counts_(static_cast<std::size_t>(pipeline.chunks)) {}

  void forward(int chunk = 0) { add(Half::kForward, chunk); }
  void backward(int chunk = 0) { add(Half::kBackward, chunk); }
  void weights(int chunk = 0) { add(Half::kWeights, chunk); }
  std::int64_t count(Half half, int chunk) const {
    return counts_[static_cast<std::size_t>(chunk)][static_cast<std::size_t>(half)];
  }
  std::vector<Action> take() { return std::move(actions_); }

 private:
  void add(Half half, int chunk) {
    const std::int64_t microbatch =
        counts_[static_cast<std::size_t>(chunk)][static_cast<std::size_t>(half)]++;
    if (microbatch < microbatches_) actions_.push_back({half, chunk, microbatch});
  }

  std::int64_t microbatches_;
  std::vector<std::array<std::int64_t, 3>> counts_;
  std::vector<Action> actions_;
};

void sequential(const Pipeline& pipeline, Order& order) {
  for (std::int64_t k = 0; k < pipeline.microbatches; ++k) {
    order.forward();
    order.backward();
  }
}

void gpipe(const Pipeline& pipeline, Order& order) {
  for (std::int64_t k = 0; k < pipeline.microbatches; ++k) order.forward();
  for (std::int64_t k = 0; k < pipeline.microbatches; ++k) order.backward();
}

// As many forwards first as there are stages behind, so that the first backward comes right after.
void one_forward_one_backward(const Pipeline& pipeline, int rank, Order& order) {
  for (int k = 0; k < pipeline.ranks - 1 - rank; ++k) order.forward();
  for (std::int64_t k = 0; k < pipeline.microbatches; ++k) {
    order.forward();
    order.backward();
  }
}

// Forwards take p microbatches through the chunks, then the next p; backwards likewise, from the
// last chunk. Before the first backward come v - 1 chunks of p microbatches and, as in Megatron-LM,
// twice as many forwards as in 1F1B.
void interleaved(const Pipeline& pipeline, int rank, Order& order) {
  const std::int64_t p = pipeline.ranks, v = pipeline.chunks;
  const std::int64_t all = pipeline.microbatches * v;
  const std::int64_t warmup = 2 * (p - 1 - rank) + (v - 1) * p;
  const auto chunk_of = [&](std::int64_t k) { return static_cast<int>(k / p % v); };
  for (std::int64_t k = 0; k < all + warmup; ++k) {
    if (k < all) order.forward(chunk_of(k));
    if (k >= warmup) order.backward(static_cast<int>(v - 1) - chunk_of(k - warmup));
  }
}

// 1F1B where rank r does the gradients of the weights r microbatches late, so that every rank has p
// in flight, as the first one has anyway; what is late fills the end.
void zb_h1(const Pipeline& pipeline, int rank, Order& order) {
  for (int k = 0; k < pipeline.ranks - 1 - rank; ++k) order.forward();
  for (std::int64_t k = 0; k < pipeline.microbatches + rank; ++k) {
    order.forward();
    order.backward();
    if (k >= rank) order.weights();
  }
}

// With all costs 1, every rank computes without a pause from its first forward on: until 2 p chunks
// are in flight it goes forwards, then in turns, and what is left of the weights' gradients fills
// the end. Fewer than 2 p - 1 microbatches leave out what the others would do.
void zb_v(const Pipeline& pipeline, int rank, Order& order) {
  const int p = pipeline.ranks;
  const std::int64_t all = std::max<std::int64_t>(pipeline.microbatches, 2 * p - 1);
  for (int k = 0; k < 2 * (p - rank) - 1; ++k) order.forward(0);
  for (int k = 0; k < rank; ++k) {
    order.forward(1);
    order.forward(0);
  }
  for (int k = 0; k < p - rank; ++k) {
    order.forward(1);
    order.backward(1);
    order.weights(1);
  }
  while (order.count(Half::kForward, 1) < all) {
    order.forward(0);
    order.backward(0);
    order.weights(0);
    order.forward(1);
    order.backward(1);
    order.weights(1);
  }
  for (int k = 0; k < rank; ++k) {
    order.backward(0);
    order.backward(1);
  }
  for (int k = 0; k < p - rank; ++k) {
    order.backward(0);
    order.weights(0);
  }
  for (int k = 0; k < rank; ++k) order.weights(1);
  for (int k = 0; k < rank; ++k) order.weights(0);
}

std::size_t index(auto number) { return static_cast<std::size_t>(number); }

// When each action of each stage ends; below zero: it has not been done.
class Ends {
 public:
  explicit Ends(const Pipeline& pipeline)
      : stages_(index(pipeline.stages())), microbatches_(index(pipeline.microbatches)) {
    ends_.assign(3 * stages_ * microbatches_, -1);
  }
  double& at(Half half, int stage, std::int64_t microbatch) {
    return ends_[(index(half) * stages_ + index(stage)) * microbatches_ + index(microbatch)];
  }

 private:
  std::size_t stages_, microbatches_;
  std::vector<double> ends_;
};

class Replayer {
 public:
  Replayer(const Pipeline& pipeline, std::span<const std::vector<Action>> orders,
           std::span<const StageCosts> costs, double seconds_per_message)
      : pipeline_(pipeline),
        orders_(orders),
        costs_(costs),
        seconds_per_message_(seconds_per_message),
        ends_(pipeline),
        in_flight_(index(pipeline.ranks)) {
    CONCORD_CHECK(orders.size() == index(pipeline.ranks), "{} orders for {} ranks", orders.size(),
                  pipeline.ranks);
    CONCORD_CHECK(costs.size() == index(pipeline.stages()), "{} costs for {} stages", costs.size(),
                  pipeline.stages());
    replay_.busy.resize(index(pipeline.ranks));
    replay_.most_in_flight.resize(index(pipeline.ranks));
    replay_.times.resize(index(pipeline.ranks));
  }

  Replay run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < pipeline_.ranks; ++rank) {
        while (next(rank)) moved = true;
      }
    }
    for (int rank = 0; rank < pipeline_.ranks; ++rank) {
      const std::vector<Action>& order = orders_[index(rank)];
      const std::size_t done = replay_.times[index(rank)].size();
      CONCORD_CHECK(done == order.size(),
                    "deadlock of {} with p = {}, v = {}, m = {}: rank {} waits for its {}",
                    name_of(pipeline_.schedule), pipeline_.ranks, pipeline_.chunks,
                    pipeline_.microbatches, rank, to_string(order[done]));
    }
    return std::move(replay_);
  }

 private:
  // When what `stage` reads of another stage is there; below zero: not yet.
  double arrival(Half half, int from, int stage, std::int64_t microbatch) {
    const double end = ends_.at(half, from, microbatch);
    const bool same_rank = place_of(pipeline_, from).first == place_of(pipeline_, stage).first;
    return end < 0 || same_rank ? end : end + seconds_per_message_;
  }

  // When all that an action reads is there; below zero: not yet.
  double ready(const Action& action, int stage) {
    const bool last = stage == pipeline_.stages() - 1;
    const std::int64_t k = action.microbatch;
    if (action.half == Half::kForward) {
      return stage == 0 ? 0 : arrival(Half::kForward, stage - 1, stage, k);
    }
    if (action.half == Half::kWeights) return ends_.at(Half::kBackward, stage, k);
    const double forward = ends_.at(Half::kForward, stage, k);
    if (last || forward < 0) return forward;
    const double behind = arrival(Half::kBackward, stage + 1, stage, k);
    return behind < 0 ? behind : std::max(forward, behind);
  }

  double cost(const Action& action, int stage) const {
    const StageCosts& of = costs_[index(stage)];
    if (action.half == Half::kForward) return of.forward;
    if (action.half == Half::kWeights) return of.weights;
    return splits_backward(pipeline_.schedule) ? of.backward : of.backward + of.weights;
  }

  // Does the next action of a rank, if there is one and it can be done.
  bool next(int rank) {
    const std::vector<Action>& order = orders_[index(rank)];
    std::vector<Interval>& times = replay_.times[index(rank)];
    if (times.size() == order.size()) return false;
    const Action& action = order[times.size()];
    const int stage = stage_of(pipeline_, rank, action.chunk);
    const double from = ready(action, stage);
    if (from < 0) return false;
    const double begin = times.empty() ? from : std::max(from, times.back().end);
    const double end = begin + cost(action, stage);
    times.push_back({begin, end});
    ends_.at(action.half, stage, action.microbatch) = end;
    replay_.busy[index(rank)] += end - begin;
    replay_.seconds = std::max(replay_.seconds, end);
    std::int64_t& in_flight = in_flight_[index(rank)];
    std::int64_t& most = replay_.most_in_flight[index(rank)];
    const Half last_half = splits_backward(pipeline_.schedule) ? Half::kWeights : Half::kBackward;
    if (action.half == Half::kForward) most = std::max(most, ++in_flight);
    if (action.half == last_half) --in_flight;
    return true;
  }

  const Pipeline& pipeline_;
  std::span<const std::vector<Action>> orders_;
  std::span<const StageCosts> costs_;
  double seconds_per_message_;
  Ends ends_;
  std::vector<std::int64_t> in_flight_;
  Replay replay_;
};

}  // namespace

std::optional<Schedule> find_schedule(std::string_view name) {
  const auto found = std::ranges::find(kNames, name);
  if (found == kNames.end()) return std::nullopt;
  return static_cast<Schedule>(found - kNames.begin());
}

std::string_view name_of(Schedule schedule) { return kNames[static_cast<std::size_t>(schedule)]; }

std::span<const std::string_view> schedule_names() { return kNames; }

std::string to_string(const Action& action) {
  constexpr std::array<std::string_view, 3> kHalves{"forward", "backward", "weights' gradients"};
  return fmt::format("{} of microbatch {}, chunk {}", kHalves[index(action.half)],
                     action.microbatch, action.chunk);
}

int fewest_chunks(Schedule schedule) {
  return schedule == Schedule::kInterleaved || schedule == Schedule::kZbV ? 2 : 1;
}

void check_pipeline(const Pipeline& pipeline) {
  const auto& [schedule, ranks, chunks, microbatches, vertical_sync] = pipeline;
  const std::string_view name = name_of(schedule);
  if (ranks < 1 || chunks < 1 || microbatches < 1) {
    fail("pipeline {}: {} ranks, {} chunks, {} microbatches: expected 1 or more of each", name,
         ranks, chunks, microbatches);
  }
  const int fewest = fewest_chunks(schedule);
  if (schedule == Schedule::kInterleaved && chunks < fewest) {
    fail("pipeline {}: {} chunk for each rank, expected {} or more; choose 1f1b for one", name,
         chunks, fewest);
  }
  if (schedule != Schedule::kInterleaved && chunks != fewest) {
    fail("pipeline {}: {} chunks for each rank, expected {}; choose interleaved for others", name,
         chunks, fewest);
  }
  if (ranks > kMostStages / chunks) {
    fail("pipeline {}: {} ranks of {} chunks, expected at most {} stages", name, ranks, chunks,
         kMostStages);
  }
  if (schedule == Schedule::kInterleaved && microbatches % ranks != 0) {
    fail(
        "pipeline {}: {} microbatches on {} ranks, expected a multiple of the ranks; change either "
        "or choose 1f1b",
        name, microbatches, ranks);
  }
  if (schedule == Schedule::kPipeDream2Bw && microbatches < ranks) {
    fail(
        "pipeline {}: {} microbatches on {} ranks, expected as many as ranks or more; make them "
        "smaller or choose pipedream",
        name, microbatches, ranks);
  }
}

bool is_asynchronous(Schedule schedule) {
  return schedule == Schedule::kPipeDream || schedule == Schedule::kPipeDream2Bw;
}

bool splits_backward(Schedule schedule) {
  return schedule == Schedule::kZbH1 || schedule == Schedule::kZbV;
}

int stage_of(const Pipeline& pipeline, int rank, int chunk) {
  CONCORD_CHECK(rank >= 0 && rank < pipeline.ranks && chunk >= 0 && chunk < pipeline.chunks,
                "rank {} of {}, chunk {} of {}", rank, pipeline.ranks, chunk, pipeline.chunks);
  if (pipeline.schedule == Schedule::kZbV && chunk == 1) return 2 * pipeline.ranks - 1 - rank;
  return chunk * pipeline.ranks + rank;
}

std::pair<int, int> place_of(const Pipeline& pipeline, int stage) {
  CONCORD_CHECK(stage >= 0 && stage < pipeline.stages(), "stage {} of {}", stage,
                pipeline.stages());
  const int chunk = stage / pipeline.ranks, at = stage % pipeline.ranks;
  if (pipeline.schedule == Schedule::kZbV && chunk == 1) return {pipeline.ranks - 1 - at, chunk};
  return {at, chunk};
}

std::vector<Action> actions_of(const Pipeline& pipeline, int rank) {
  check_pipeline(pipeline);
  CONCORD_CHECK(rank >= 0 && rank < pipeline.ranks, "rank {} of {}", rank, pipeline.ranks);
  Order order(pipeline);
  switch (pipeline.schedule) {
    case Schedule::kSequential:
      sequential(pipeline, order);
      break;
    case Schedule::kGPipe:
      gpipe(pipeline, order);
      break;
    case Schedule::k1F1B:
    case Schedule::kPipeDream:
    case Schedule::kPipeDream2Bw:
      one_forward_one_backward(pipeline, rank, order);
      break;
    case Schedule::kInterleaved:
      interleaved(pipeline, rank, order);
      break;
    case Schedule::kZbH1:
      zb_h1(pipeline, rank, order);
      break;
    case Schedule::kZbV:
      zb_v(pipeline, rank, order);
      break;
  }
  return order.take();
}

std::int64_t staleness(const Pipeline& pipeline, int stage) {
  CONCORD_CHECK(stage >= 0 && stage < pipeline.stages(), "stage {} of {}", stage,
                pipeline.stages());
  if (pipeline.schedule == Schedule::kPipeDream) {
    return pipeline.stages() - 1 - (pipeline.vertical_sync ? 0 : stage);
  }
  return pipeline.schedule == Schedule::kPipeDream2Bw ? 1 : 0;
}

double Replay::bubble() const {
  const double computing = std::accumulate(busy.begin(), busy.end(), 0.0);
  const double all = seconds * static_cast<double>(busy.size());
  return computing > 0 ? (all - computing) / computing : 0;
}

Replay replay(const Pipeline& pipeline, std::span<const StageCosts> stages,
              double seconds_per_message) {
  std::vector<std::vector<Action>> orders;
  for (int rank = 0; rank < pipeline.ranks; ++rank) orders.push_back(actions_of(pipeline, rank));
  return replay(pipeline, orders, stages, seconds_per_message);
}

Replay replay(const Pipeline& pipeline, std::span<const std::vector<Action>> orders,
              std::span<const StageCosts> stages, double seconds_per_message) {
  return Replayer(pipeline, orders, stages, seconds_per_message).run();
}

}  // namespace concord::parallel

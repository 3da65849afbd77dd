#include "concord/train/pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "concord/base/error.h"
#include "concord/parallel/stages.h"
#include "concord/runtime/sleep_kernel.h"

namespace concord::train {
namespace {

std::size_t at(int i) { return static_cast<std::size_t>(i); }

std::string_view name_of(parallel::Half half) {
  constexpr std::string_view kNames[] = {"forward", "backward", "weights"};
  return kNames[static_cast<std::size_t>(half)];
}

// How many turns of each rank have to be done before a turn of one of them is: along the line of
// stages a microbatch goes from place to place, and each rank does one turn after another.
class Needs {
 public:
  Needs(const parallel::Plan& plan, const std::vector<std::vector<Turn>>& turns)
      : plan_(plan), pipeline_(plan.pipeline()), turns_(turns), needs_(turns.size()) {
    for (bool any = true; any;) {
      any = false;
      for (int rank = 0; rank < pipeline_.ranks; ++rank) {
        while (needs_[at(rank)].size() < turns[at(rank)].size() && take(rank)) any = true;
      }
    }
    for (int rank = 0; rank < pipeline_.ranks; ++rank) {
      CONCORD_CHECK(needs_[at(rank)].size() == turns[at(rank)].size(), "ranks wait for each other");
    }
  }

  // By own turn, by rank.
  const std::vector<std::vector<std::int64_t>>& of(int rank) const { return needs_[at(rank)]; }

 private:
  // On the line; behind it what nobody waits for.
  int place_of(int rank, int half) const {
    const auto [kind, chunk] = parallel::halves_of(plan_)[at(half)];
    const int stage = stage_of(pipeline_, rank, chunk);
    if (kind == parallel::Half::kForward) return stage;
    if (kind == parallel::Half::kBackward) return 2 * pipeline_.stages() - 1 - stage;
    return -1;
  }

  bool take(int rank) {
    const std::size_t number = needs_[at(rank)].size();
    const Turn& turn = turns_[at(rank)][number];
    const int place = place_of(rank, turn.half);
    std::vector<std::int64_t> need(turns_.size(), 0);
    if (place > 0) {
      const auto before = done_.find({place - 1, turn.microbatch});
      if (before == done_.end()) return false;
      need = before->second;
    }
    if (number > 0) {
      const auto& last = needs_[at(rank)].back();
      for (std::size_t r = 0; r < need.size(); ++r) need[r] = std::max(need[r], last[r]);
    }
    need[at(rank)] = static_cast<std::int64_t>(number);
    needs_[at(rank)].push_back(need);
    need[at(rank)] = static_cast<std::int64_t>(number) + 1;
    if (place >= 0) done_[{place, turn.microbatch}] = std::move(need);
    return true;
  }

  const parallel::Plan& plan_;
  parallel::Pipeline pipeline_;
  const std::vector<std::vector<Turn>>& turns_;
  std::vector<std::vector<std::vector<std::int64_t>>> needs_;
  std::map<std::pair<int, std::int64_t>, std::vector<std::int64_t>> done_;
};

// Of the turns of all ranks those of the first `microbatches`, of `most`.
PipelineOrder order_of(const parallel::Plan& plan, int rank, std::int64_t microbatches,
                       std::int64_t most, std::vector<std::vector<Turn>> turns) {
  PipelineOrder order{.microbatches = microbatches, .most_microbatches = most};
  for (auto& of_rank : turns) {
    std::erase_if(of_rank, [&](const Turn& turn) { return turn.microbatch >= most; });
  }
  order.of_all = turns[at(rank)];
  for (auto& of_rank : turns) {
    std::erase_if(of_rank, [&](const Turn& turn) { return turn.microbatch >= microbatches; });
  }
  order.own = turns[at(rank)];
  for (const auto& [half, chunk] : parallel::halves_of(plan)) {
    order.names.push_back({std::string(name_of(half)), chunk});
  }
  const Needs needs(plan, turns);
  for (int peer = 0; peer < plan.mesh.extent(parallel::kPipeAxis); ++peer) {
    if (peer == rank) continue;
    order.of_peers[peer].turns = turns[at(peer)];
    for (const auto& need : needs.of(rank)) order.of_peers[peer].needed.push_back(need[at(peer)]);
  }
  return order;
}

}  // namespace

bool overlaps_steps(const parallel::Plan& plan) {
  return plan.mesh.extent(parallel::kPipeAxis) > 1 && is_asynchronous(plan.schedule);
}

comm::Communicator& ranks_along_pipe(const parallel::Plan& plan, comm::Communicator& ranks) {
  if (!overlaps_steps(plan)) return ranks.split(plan.mesh, parallel::kPipeAxis);
  std::vector<int> lines;
  for (int rank = 0; rank < plan.mesh.ranks(); ++rank) {
    lines.push_back(plan.mesh.ranks_along(rank, parallel::kPipeAxis)[0]);
  }
  return ranks.split("pipeline", lines);
}

PipelineOrder order_of_steps(const parallel::Plan& plan, int rank, std::int64_t microbatches,
                             std::int64_t most) {
  most = std::max(most, microbatches);
  parallel::Pipeline pipeline = plan.pipeline(most);
  // A step of those that do not flush is in the order of one that does.
  if (is_asynchronous(plan.schedule)) pipeline.schedule = parallel::Schedule::k1F1B;
  // The last step of an epoch may have fewer than the schedule takes: of its order, some are left
  // out.
  if (plan.schedule == parallel::Schedule::kInterleaved) {
    pipeline.microbatches = (most + pipeline.ranks - 1) / pipeline.ranks * pipeline.ranks;
  }
  std::vector<std::vector<Turn>> turns(at(pipeline.ranks));
  for (int r = 0; r < pipeline.ranks; ++r) {
    for (const parallel::Action& action : actions_of(pipeline, r)) {
      turns[at(r)].push_back(
          {parallel::half_index(plan, action.half, action.chunk), action.microbatch});
    }
  }
  return order_of(plan, rank, microbatches, most, std::move(turns));
}

PipelineOrder order_of_evaluations(const parallel::Plan& plan, int rank,
                                   std::int64_t microbatches) {
  std::vector<std::vector<Turn>> turns(at(plan.mesh.extent(parallel::kPipeAxis)));
  for (auto& of_rank : turns) {
    for (std::int64_t m = 0; m < microbatches; ++m) {
      for (int chunk = 0; chunk < plan.chunks; ++chunk) of_rank.push_back({chunk, m});
    }
  }
  return order_of(plan, rank, microbatches, microbatches, std::move(turns));
}

void pretend_equal_stages(Program& program, const parallel::Plan& plan, double seconds) {
  const bool splits = splits_backward(plan.schedule);
  std::vector<double> of_halves;
  for (const auto& [half, chunk] : parallel::halves_of(plan)) {
    const bool is_both = half == parallel::Half::kBackward && !splits;
    of_halves.push_back(is_both ? 2 * seconds : seconds);
  }
  // The first stage sends no gradients of inputs: all of its backward pass is among those of
  // weights.
  for (std::size_t h = 0; h < program.halves.size() && splits; ++h) {
    const auto [half, chunk] = parallel::halves_of(plan)[h];
    if (half != parallel::Half::kBackward || computes(program, h)) continue;
    of_halves[at(parallel::half_index(plan, parallel::Half::kWeights, chunk))] += seconds;
  }
  if (plan.mesh.extent(parallel::kPipeAxis) == 1) of_halves = {3 * seconds};
  pretend_halves(program, of_halves);
}

Streams join_streams(const parallel::Plan& plan, comm::Communicator& ranks) {
  const Mesh& mesh = plan.mesh;
  const int own_place = mesh.coordinate(ranks.rank(), parallel::kPipeAxis);
  Streams own;
  std::vector<parallel::Stream> left = plan.streams;
  for (int round = 0; !left.empty(); ++round) {
    // Those of which no rank has two are made together.
    std::vector<parallel::Stream> together, later;
    std::set<int> taken;
    for (const parallel::Stream& stream : left) {
      const bool fits = !taken.contains(stream.from) && !taken.contains(stream.to);
      (fits ? together : later).push_back(stream);
      if (fits) taken.insert({stream.from, stream.to});
    }
    std::vector<int> colors(at(mesh.ranks()));
    std::iota(colors.begin(), colors.end(), 0);
    for (int rank = 0; rank < mesh.ranks(); ++rank) {
      const std::vector<int> line = mesh.ranks_along(rank, parallel::kPipeAxis);
      for (const parallel::Stream& stream : together) {
        if (mesh.coordinate(rank, parallel::kPipeAxis) != stream.to) continue;
        colors[at(rank)] = line[at(stream.from)];
      }
    }
    comm::Communicator& pairs =
        ranks.split(fmt::format("{} {}", parallel::kPipeAxis, round), colors);
    for (const parallel::Stream& stream : together) {
      if (own_place == stream.from || own_place == stream.to) own[stream] = &pairs;
    }
    left = std::move(later);
  }
  return own;
}

}  // namespace concord::train

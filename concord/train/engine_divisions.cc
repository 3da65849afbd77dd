// How a step is divided: into leaves and microbatches, and these among ranks and encoders.
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <numeric>
#include <tuple>

#include "concord/base/error.h"
#include "concord/graph/op.h"
#include "concord/train/engine.h"

namespace concord::train {
namespace {

double microbatch_flops(const Graph& graph) {
  const std::vector<Phase> phase = phases(graph);
  double flops = 0;
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    if (phase[i] == Phase::kMicrobatch) flops += cost_of(graph, graph.nodes[i]).flops;
  }
  return flops;
}

std::int64_t parameters_of(const Graph& graph) {
  std::int64_t count = 0;
  for (const State& state : graph.states) {
    if (state.role == State::Role::kParameter) count += graph.type(state.value).shape.elements();
  }
  return count;
}

// `ranks`: those along "data".
void check_divisions(const EngineOptions& options, int ranks) {
  if (options.batch < 1) fail("train.batch = {}: expected at least 1", options.batch);
  if (options.leaves < 1 || !std::has_single_bit(static_cast<std::uint64_t>(options.leaves)) ||
      options.leaves > options.batch) {
    fail("train.leaves = {}: expected a power of two of at most train.batch = {}", options.leaves,
         options.batch);
  }
  const std::int64_t leaf = (options.batch + options.leaves - 1) / options.leaves;
  if (const std::int64_t whole = (options.batch + leaf - 1) / leaf; whole < options.leaves) {
    fail(
        "train.leaves = {}: a batch of {} makes only {} leaves of {} samples each; expected a "
        "train.batch that makes {}, such as {}",
        options.leaves, options.batch, whole, leaf, options.leaves, leaf * options.leaves);
  }
  if (options.leaves < ranks) {
    const int others = options.plan.mesh.ranks() / ranks;  // along other axes
    fail(
        "{} ranks{} share the leaves of a step, but train.leaves = {}: start at most {}, or set "
        "train.leaves = {}",
        ranks, others == 1 ? "" : " along data", options.leaves, options.leaves * others,
        std::bit_ceil(static_cast<unsigned>(ranks)));
  }
}

// [first, second), rank after rank.
std::pair<std::int64_t, std::int64_t> leaves_of_rank(const EngineOptions& options, int rank,
                                                     int ranks) {
  const std::vector<std::int64_t>& of_ranks = options.leaves_of_ranks;
  if (of_ranks.empty()) return {options.leaves * rank / ranks, options.leaves * (rank + 1) / ranks};
  const std::int64_t all = std::reduce(of_ranks.begin(), of_ranks.end());
  if (of_ranks.size() != static_cast<std::size_t>(ranks) || all != options.leaves ||
      std::ranges::min(of_ranks) < 1) {
    fail(
        "parallel.leaves = [{}]: expected {} numbers, one for each rank{}, of at least 1 each and "
        "{} together (train.leaves)",
        fmt::join(of_ranks, ", "), ranks, options.plan.mesh.ranks() == ranks ? "" : " along data",
        options.leaves);
  }
  const auto own = of_ranks.begin() + rank;
  const std::int64_t first = std::reduce(of_ranks.begin(), own);
  return {first, first + *own};
}

}  // namespace

std::int64_t default_leaves(std::int64_t batch, double flops_per_sample, std::int64_t parameters) {
  constexpr std::int64_t kMostLeaves = 8;
  constexpr double kFewestSamples = 16;
  constexpr double kFewestFlopsPerParameter = 2000;
  std::int64_t leaves = 1;
  while (leaves < kMostLeaves) {
    const double samples = static_cast<double>(batch) / static_cast<double>(2 * leaves);
    const double flops = samples * flops_per_sample;
    if (samples < kFewestSamples ||
        flops < kFewestFlopsPerParameter * static_cast<double>(parameters)) {
      break;
    }
    leaves *= 2;
  }
  return leaves;
}

// Leaves and microbatch, where they are not given. They are those of training for every use, so
// that an evaluation adds up its loss in the same order.
void Engine::choose_divisions() {
  if (options_.leaves == 0 && options_.batch > 0) {
    const Graph graph = graphs_.training(options_.batch);
    options_.leaves = default_leaves(options_.batch,
                                     microbatch_flops(graph) / static_cast<double>(options_.batch),
                                     parameters_of(graph));
  }
  check_divisions(options_, data_->size());
  std::tie(first_leaf_, end_leaf_) = leaves_of_rank(options_, data_->rank(), data_->size());
  if (options_.microbatch == 0) options_.microbatch = leaf_size();
  if (options_.microbatch < 1 || options_.microbatch > leaf_size()) {
    fail(
        "train.microbatch = {}: expected 1 to {}, the samples of a leaf (train.batch / "
        "train.leaves)",
        options_.microbatch, leaf_size());
  }
  check_rounds();
  check_asynchronous();
  check_encoders();
}

// Each has the leaves of whole encoders, as many as the others.
void Engine::check_encoders() const {
  if (options_.plan.codecs.empty()) return;
  const std::int64_t encoders = options_.plan.encoders, ranks = data_->size();
  if (encoders > options_.leaves || encoders % ranks != 0 ||
      !std::has_single_bit(static_cast<std::uint64_t>(encoders))) {
    fail(
        "parallel.encoders = {}, of {} rank{} along data and train.leaves = {}: expected a power "
        "of "
        "two that is a multiple of the ranks and at most as many as leaves",
        encoders, ranks, ranks == 1 ? "" : "s", options_.leaves);
  }
  if (leaf_count() * ranks != options_.leaves) {
    fail("parallel.leaves = [{}] with parallel.codec: expected equally many leaves on each rank",
         fmt::join(options_.leaves_of_ranks, ", "));
  }
}

// Of the nodes of the tree that are summed before they are encoded.
int Engine::height_of_encoders() const {
  if (options_.plan.codecs.empty() || options_.local) return comm::kMostHeight;
  return std::bit_width(static_cast<std::uint64_t>(options_.leaves / options_.plan.encoders)) - 1;
}

// In a round each rank has a leaf, whose gradients it does not keep.
void Engine::check_rounds() const {
  if (!in_rounds()) return;
  const int ranks = data_->size();
  const auto refuse = [&](const std::string& given, const std::string& expected) {
    fail(
        "parallel.zero = {} divides the gradients of each leaf over the ranks: given {}; expected "
        "{}",
        options_.plan.zero, given, expected);
  };
  if (!std::has_single_bit(static_cast<unsigned>(ranks))) {
    refuse(fmt::format("{} ranks along data", ranks),
           fmt::format("a power of two, such as {}", std::bit_floor(static_cast<unsigned>(ranks))));
  }
  if (!options_.leaves_of_ranks.empty()) {
    refuse("parallel.leaves", "it to be left out: each rank has as many leaves as the others");
  }
  if (microbatches_per_leaf() > 1) {
    refuse(fmt::format("train.microbatch = {} and leaves of {} samples", options_.microbatch,
                       leaf_size()),
           fmt::format("leaves of one microbatch, such as train.leaves = {}",
                       std::bit_ceil(static_cast<std::uint64_t>(microbatches()))));
  }
}

std::int64_t Engine::leaf_size() const {
  return (options_.batch + options_.leaves - 1) / options_.leaves;
}

std::int64_t Engine::microbatches_per_leaf() const {
  return (leaf_size() + options_.microbatch - 1) / options_.microbatch;
}

std::int64_t Engine::microbatches() const { return options_.leaves * microbatches_per_leaf(); }

std::vector<std::int64_t> Engine::leaves_of_ranks() const {
  std::vector<std::int64_t> leaves;
  for (int rank = 0; rank < data_->size(); ++rank) {
    const auto [first, end] = leaves_of_rank(options_, rank, data_->size());
    leaves.push_back(end - first);
  }
  return leaves;
}

data::Slice Engine::slice_of(std::int64_t count) const {
  return {std::min(count, first_leaf_ * leaf_size()), std::min(count, end_leaf_ * leaf_size())};
}

bool Engine::in_rounds() const { return options_.plan.zero >= 2 && sums_over_ranks(); }

std::int64_t Engine::leaf_at(std::int64_t i) const {
  return in_rounds() ? i * data_->size() + data_->rank() : first_leaf_ + i;
}

std::int64_t Engine::position_of(std::int64_t sample) const {
  return leaf_at(sample / leaf_size()) * leaf_size() + sample % leaf_size();
}

std::vector<data::Slice> Engine::training_slices(std::int64_t count) const {
  if (!in_rounds()) return {slice_of(count)};
  std::vector<data::Slice> slices;
  for (std::int64_t i = 0; i < leaf_count(); ++i) {
    slices.push_back({std::min(count, leaf_at(i) * leaf_size()),
                      std::min(count, (leaf_at(i) + 1) * leaf_size())});
  }
  return slices;
}

std::int64_t Engine::own_samples(std::int64_t count) const {
  std::int64_t samples = 0;
  for (std::int64_t i = 0; i < leaf_count(); ++i) {
    samples += std::clamp<std::int64_t>(count - leaf_at(i) * leaf_size(), 0, leaf_size());
  }
  return samples;
}

std::int64_t Engine::missing_microbatches(std::int64_t samples) const {
  std::int64_t most = 0, own = 0;
  for (int rank = 0; rank < data_->size(); ++rank) {
    const auto [first, end] = leaves_of_rank(options_, rank, data_->size());
    const std::int64_t begin = std::min(first * leaf_size(), samples);
    std::int64_t count = 0;
    for_each_microbatch(begin, std::min(end * leaf_size(), samples) - begin,
                        [&](std::int64_t, std::int64_t, bool, bool) { ++count; });
    if (pipe_ranks() == 1) count = std::max<std::int64_t>(1, count);
    most = std::max(most, count);
    if (rank == data_->rank()) own = count;
  }
  return most - own;
}

// As far as a step of so many samples has leaves.
StepPlace Engine::step_place(std::int64_t samples) const {
  const std::int64_t leaves = (samples + leaf_size() - 1) / leaf_size();
  return {.step = step_.step,
          .first_leaf = options_.local ? 0 : first_leaf_,
          .rounds = (leaves + data_->size() - 1) / data_->size()};
}

}  // namespace concord::train

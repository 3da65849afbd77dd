#include "concord/train/saver.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <random>
#include <utility>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/optim/optimizer.h"
#include "concord/parallel/plan.h"

namespace concord::train {
namespace {

// Those that see the folder in which rank 0 writes.
std::vector<int> ranks_that_see(const std::filesystem::path& directory, comm::Communicator& ranks) {
  const std::string token = ranks.broadcast(fmt::format("{:08x}", std::random_device()()));
  const std::filesystem::path mark = directory / (".seen-" + token);
  if (ranks.is_first()) OutputFile{mark};
  ranks.barrier();
  const std::vector<std::string> seen = texts_of_ranks(ranks, file_exists(mark) ? "yes" : "");
  if (ranks.is_first()) {
    std::error_code ignored;
    std::filesystem::remove(mark, ignored);
  }
  std::vector<int> result;
  for (int r = 0; r < ranks.size(); ++r) {
    if (!seen[static_cast<std::size_t>(r)].empty()) result.push_back(r);
  }
  return result;
}

}  // namespace

Place place_of(const StateStore& states, const StateStore::Entry& entry) {
  if (average_of(states, entry) != nullptr) return {false, entry.name + ".trained"};
  if (entry.role != State::Role::kOptimizer) return {true, entry.name};
  std::string_view name = entry.name;
  const bool is_average = name.ends_with(kAverageSuffix);
  if (is_average) name.remove_suffix(kAverageSuffix.size());
  return {is_average, std::string(name)};
}

std::vector<int> writers_of(const StateStore& states, std::span<const int> writers) {
  const auto bytes_of = [&](std::size_t i) { return states.entries()[i].type.bytes(); };
  std::vector<std::size_t> order(states.entries().size()), load(writers.size(), 0);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater(), bytes_of);
  std::vector<int> result(order.size());
  for (const std::size_t i : order) {
    const auto least = std::ranges::min_element(load);
    *least += bytes_of(i);
    result[i] = writers[static_cast<std::size_t>(least - load.begin())];
  }
  return result;
}

std::vector<std::string> texts_of_ranks(comm::Communicator& ranks, const std::string& own) {
  using Text = std::array<char, 256>;
  Text text{};
  std::copy_n(own.begin(), std::min(own.size(), text.size() - 1), text.begin());
  std::vector<Text> all(static_cast<std::size_t>(ranks.size()));
  ranks.run(comm::all_gather(std::as_bytes(std::span(text)), std::as_writable_bytes(std::span(all)),
                             "texts"));
  std::vector<std::string> result;
  for (const Text& each : all) result.emplace_back(each.data());
  return result;
}

Saver::Saver(std::filesystem::path directory, int keep_last,
             std::optional<std::int64_t> resumed_from, comm::Communicator& ranks)
    : directory_(std::move(directory)), ranks_(ranks) {
  if (is_first()) store_.emplace(directory_, keep_last, resumed_from);
}

void Saver::begin(const Engine& engine) {
  engine_ = &engine;
  divides_ = engine.states().is_divided();
  std::vector<int> writers = {0};
  if (divides_) writers = ranks_that_see(directory_, ranks_);
  several_write_ = writers.size() > 1;
  writer_ = writers_of(engine.states(), writers);
}

std::map<std::string, int> Saver::place_on_axes(int rank) const {
  std::map<std::string, int> place;
  for (const std::string_view axis :
       {parallel::kDataAxis, parallel::kTensorAxis, parallel::kPipeAxis}) {
    place[std::string(axis)] = engine_->plan().mesh.coordinate(rank, axis);
  }
  return place;
}

std::optional<SaveResult> Saver::save(CheckpointInfo info, std::span<const Extra> extras) {
  const std::int64_t step = info.step;
  Snapshot snapshot;
  if (several_write_) {
    snapshot = parts_.take_snapshot();
  } else if (store_) {
    snapshot = store_->take_snapshot();
  }
  snapshot.info = std::move(info);
  snapshot.weights_elsewhere.clear();
  snapshot.optimizer_elsewhere.clear();

  const StateStore& states = engine_->states();
  for (std::size_t i = 0; i < states.entries().size(); ++i) {
    const StateStore::Entry& entry = states.entries()[i];
    const auto [is_weight, name] = place_of(states, entry);
    std::byte* destination = nullptr;
    if (writer_[i] == ranks_.rank()) {
      destination = slot(is_weight ? snapshot.weights : snapshot.optimizer, name, entry.type).data;
    } else {
      (is_weight ? snapshot.weights_elsewhere : snapshot.optimizer_elsewhere)
          .emplace(name, entry.type);
    }
    states.gather(entry, place_on_axes(writer_[i]), destination);
  }
  for (const Extra& extra : extras) {
    CONCORD_CHECK(!several_write_, "{}", extra.name);
    extra.read(slot(snapshot.optimizer, extra.name, extra.type).data);
  }

  if (!several_write_) {
    if (store_) store_->save(std::move(snapshot));
    begun_step_ = step;
    return std::nullopt;
  }
  std::string why;
  if (store_) why = store_->prepare(snapshot);
  if (ranks_.any_of(why.empty() ? 0 : 1) != 0) {
    return store_ ? std::optional(store_->discard(step, why)) : std::nullopt;
  }
  parts_.write(CheckpointStore::being_written(directory_, step), std::move(snapshot));
  is_shared_ = true;
  begun_step_ = step;
  return std::nullopt;
}

// All have written, or wait for that.
std::optional<SaveResult> Saver::end_writing() {
  is_shared_ = false;
  const std::vector<std::string> problems = texts_of_ranks(ranks_, parts_.wait());
  if (!store_) return std::nullopt;
  for (std::size_t r = 0; r < problems.size(); ++r) {
    if (problems[r].empty()) continue;
    return store_->discard(parts_.info().step, fmt::format("rank {}: {}", r, problems[r]));
  }
  store_->complete(parts_.info());
  return std::nullopt;
}

std::optional<SaveResult> Saver::poll(std::uint32_t agreed) {
  if (has_written(agreed)) {
    if (const auto failed = end_writing()) return failed;
  }
  return store_ ? store_->poll() : std::nullopt;
}

std::optional<SaveResult> Saver::wait() {
  if (is_shared_) {
    if (const auto failed = end_writing()) return failed;
  }
  return wait_alone();
}

bool Saver::is_best(double score) {
  std::uint32_t is_best = 0;
  if (store_) {
    const std::optional<double> best = store_->best_score();
    is_best = !best || score > *best ? 1 : 0;
  }
  return (divides_ ? ranks_.any_of(is_best) : is_best) != 0;
}

}  // namespace concord::train

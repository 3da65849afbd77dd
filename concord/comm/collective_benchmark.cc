#include "concord/comm/collective_benchmark.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "concord/base/clock.h"

namespace concord::comm {
namespace {

using Kind = Operation::Kind;

constexpr Kind kKinds[] = {Kind::kAllReduce, Kind::kReduceScatter, Kind::kAllGather,
                           Kind::kBroadcast, Kind::kAllToAll,      Kind::kGather,
                           Kind::kSend,      Kind::kBarrier};

// "all_reduce"
std::string option_of(Kind kind) {
  std::string name(name_of(kind));
  std::ranges::replace(name, '-', '_');
  return name;
}

double share_that_travels(Kind kind, int ranks) {
  const double others = static_cast<double>(ranks - 1) / ranks;
  if (kind == Kind::kAllReduce) return 2 * others;
  return kind == Kind::kBroadcast || kind == Kind::kSend ? 1 : others;
}

// An operation of one kind over two buffers. Numbers are small and whole: sums of them are exact.
class Trial {
 public:
  Trial(Communicator& ranks, Kind kind, std::size_t bytes, bool shared)
      : ranks_(ranks), kind_(kind) {
    const auto size = static_cast<std::size_t>(ranks.size());
    const std::size_t numbers = (bytes + sizeof(float) - 1) / sizeof(float);
    piece_ = (numbers + size - 1) / size;
    for (const std::size_t i : {0, 1}) {
      const std::size_t count = piece_ * size;
      if (!shared) own_[i].resize(count);
      data_[i] =
          shared ? std::span(reinterpret_cast<float*>(ranks.share(count * sizeof(float))), count)
                 : std::span(own_[i]);
    }
    for (std::size_t i = 0; i < in().size(); ++i) in()[i] = given(ranks.rank(), i);
    ranks.barrier();
  }

  std::size_t bytes() const { return kind_ == Kind::kBarrier ? 0 : data_[0].size_bytes(); }

  void check() const {
    for (std::size_t i = 0; i < result_count(); ++i) {
      if (out()[i] == expected(i)) continue;
      fail("{} of {} bytes: rank {} got {} as number {}; expected {}", name_of(kind_), bytes(),
           ranks_.rank(), out()[i], i, expected(i));
    }
  }

  // Once. A message goes from rank 0 to the last, and back.
  void run() const {
    if (kind_ != Kind::kSend) return void(ranks_.run(operation()));
    const int last = ranks_.size() - 1;
    const auto memory = std::as_writable_bytes(out());
    if (ranks_.is_first()) {
      ranks_.run(send(std::as_bytes(in()), last));
      ranks_.run(receive(memory, last));
    } else if (ranks_.rank() == last) {
      ranks_.run(receive(memory, 0));
      ranks_.run(send(memory, 0));
    }
  }

  // The way there and the way back are two.
  double operations_in_a_run() const { return kind_ == Kind::kSend ? 2 : 1; }

 private:
  Operation operation() const {
    const auto bytes_in = [](std::span<float> values) { return std::as_writable_bytes(values); };
    const auto piece = in().first(piece_);
    switch (kind_) {
      case Kind::kAllReduce:
        return all_reduce(in(), out());
      case Kind::kReduceScatter:
        return reduce_scatter(in(), out().first(piece_));
      case Kind::kAllGather:
        return all_gather(bytes_in(piece), bytes_in(out()));
      case Kind::kBroadcast:
        return broadcast(bytes_in(ranks_.is_first() ? in() : out()), 0);
      case Kind::kAllToAll:
        return all_to_all(bytes_in(in()), bytes_in(out()));
      case Kind::kGather:
        return gather(bytes_in(piece), bytes_in(out()), 0);
      default:
        return barrier();
    }
  }

  static float given(int rank, std::size_t i) {
    return static_cast<float>((static_cast<std::size_t>(rank) * 37 + i) % 1009);
  }
  std::span<float> in() const { return data_[0]; }
  std::span<float> out() const { return data_[1]; }

  std::size_t result_count() const {
    if (kind_ == Kind::kBarrier) return 0;
    if (kind_ == Kind::kReduceScatter) return piece_;
    if (kind_ == Kind::kSend) {
      return ranks_.is_first() || ranks_.rank() == ranks_.size() - 1 ? out().size() : 0;
    }
    const bool is_at_root = kind_ == Kind::kGather, is_elsewhere = kind_ == Kind::kBroadcast;
    if (ranks_.is_first() ? is_elsewhere : is_at_root) return 0;
    return out().size();
  }
  float expected(std::size_t i) const {
    const auto own = static_cast<std::size_t>(ranks_.rank());
    if (kind_ == Kind::kBroadcast || kind_ == Kind::kSend) return given(0, i);
    if (kind_ == Kind::kAllToAll)
      return given(static_cast<int>(i / piece_), own * piece_ + i % piece_);
    if (kind_ == Kind::kAllGather || kind_ == Kind::kGather) {
      return given(static_cast<int>(i / piece_), i % piece_);
    }
    float sum = 0;
    for (int r = 0; r < ranks_.size(); ++r) {
      sum += given(r, kind_ == Kind::kReduceScatter ? own * piece_ + i : i);
    }
    return sum;
  }

  Communicator& ranks_;
  Kind kind_;
  std::size_t piece_;
  std::vector<float> own_[2];
  std::span<float> data_[2];
};

double seconds_of(Communicator& ranks, const Trial& trial) {
  ranks.barrier();
  const double start = now_seconds();
  trial.run();
  return (now_seconds() - start) / trial.operations_in_a_run();
}

// The largest over ranks of each repetition.
std::vector<double> slowest_ranks(Communicator& ranks, std::vector<double> seconds) {
  std::vector<double> all(seconds.size() * static_cast<std::size_t>(ranks.size()));
  ranks.run(all_gather(std::as_bytes(std::span(seconds)), std::as_writable_bytes(std::span(all))));
  for (std::size_t i = 0; i < all.size(); ++i) {
    double& slowest = seconds[i % seconds.size()];
    slowest = std::max(slowest, all[i]);
  }
  return seconds;
}

}  // namespace

std::vector<std::string_view> benchmarked_collectives() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> result;
    for (const Kind kind : kKinds) result.push_back(option_of(kind));
    return result;
  }();
  return {names.begin(), names.end()};
}

Kind benchmarked_collective(std::string_view name) {
  for (const Kind kind : kKinds) {
    if (option_of(kind) == name) return kind;
  }
  fail("there is no collective \"{}\"; choose one of {}", name,
       fmt::join(benchmarked_collectives(), ", "));
}

CollectiveBenchmark benchmark_collective(Communicator& ranks,
                                         const CollectiveBenchmarkOptions& options) {
  const Trial trial(ranks, options.kind, options.bytes, options.shared);
  trial.run();
  trial.check();
  std::vector<double> seconds;
  for (int i = 0; i < 5; ++i) seconds.push_back(seconds_of(ranks, trial));
  seconds = slowest_ranks(ranks, seconds);
  int repetitions = options.repetitions;
  if (repetitions == 0) {
    constexpr double kFewest = 5, kMost = 100000;
    std::ranges::sort(seconds);
    repetitions = static_cast<int>(std::clamp(options.seconds / seconds[2], kFewest, kMost));
  }
  seconds.clear();
  for (int i = 0; i < repetitions; ++i) seconds.push_back(seconds_of(ranks, trial));
  seconds = slowest_ranks(ranks, seconds);
  std::ranges::sort(seconds);
  CollectiveBenchmark result{.bytes = trial.bytes(),
                             .repetitions = repetitions,
                             .seconds = seconds[seconds.size() / 2],
                             .fastest_seconds = seconds.front(),
                             .slowest_seconds = seconds.back()};
  result.algorithm_bandwidth = static_cast<double>(result.bytes) / result.seconds;
  result.bus_bandwidth =
      result.algorithm_bandwidth * share_that_travels(options.kind, ranks.size());
  return result;
}

}  // namespace concord::comm

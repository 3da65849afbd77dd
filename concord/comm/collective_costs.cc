#include "concord/comm/collective_costs.h"

#include <algorithm>

#include "concord/base/clock.h"
#include "concord/base/error.h"
#include "concord/comm/collective_benchmark.h"

namespace concord::comm {

using Kind = Operation::Kind;

namespace {

// From when a message is started to when the rank that has asked for it, and waits, has it, as
// ranks along a pipe do it: by the threads of their communicators, one for each way. Half the time
// there and back between the first and the last: the median.
double seconds_of_message(Communicator& ranks, std::size_t bytes) {
  const std::vector<int> all(static_cast<std::size_t>(ranks.size()), 0);
  Communicator& back = ranks.split("and back", all);
  std::byte *const in = ranks.share(bytes), *const out = ranks.share(bytes);
  std::fill_n(in, bytes, std::byte{0});
  ranks.barrier();
  constexpr std::size_t kFewest = 20, kMost = 200, kBytes = std::size_t{200} << 20;
  const std::size_t repetitions = std::clamp(kBytes / bytes, kFewest, kMost);
  const int last = ranks.size() - 1;
  std::vector<double> seconds;
  if (ranks.is_first()) {
    for (std::size_t i = 0; i < repetitions; ++i) {
      const Ticket answer = back.start(receive({out, bytes}, last));
      const double start = now_seconds();
      ranks.start(send({in, bytes}, last));
      back.wait(answer);
      seconds.push_back((now_seconds() - start) / 2);
    }
  } else if (ranks.rank() == last) {
    Ticket question = ranks.start(receive({out, bytes}, 0));
    for (std::size_t i = 0; i < repetitions; ++i) {
      ranks.wait(question);
      back.start(send({in, bytes}, 0));
      if (i + 1 < repetitions) question = ranks.start(receive({out, bytes}, 0));
    }
  }
  ranks.barrier();
  back.barrier();
  ranks.unshare(in);
  ranks.unshare(out);
  if (seconds.empty()) return 0;
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

}  // namespace

Kind measured_kind(Kind kind) {
  switch (kind) {
    case Kind::kTreeSum:
    case Kind::kMaximum:
      return Kind::kAllReduce;
    case Kind::kTreeScatter:
      return Kind::kReduceScatter;
    case Kind::kAgreement:
      return Kind::kBarrier;
    case Kind::kReceive:
      return Kind::kSend;
    default:
      return kind;
  }
}

void CollectiveCosts::measure(Communicator& ranks, Kind kind, std::size_t most_bytes) {
  const Kind measured = measured_kind(kind);
  std::vector<Sample>& samples = samples_[{measured, ranks.size()}];
  samples.clear();
  constexpr std::size_t kFewest = 4 << 10, kMost = std::size_t{32} << 20;
  std::vector<std::size_t> sizes = {0};
  if (measured != Kind::kBarrier) {
    sizes.clear();
    for (std::size_t size = kFewest; size < std::min(kMost, most_bytes); size *= 8) {
      sizes.push_back(size);
    }
    sizes.push_back(std::clamp(most_bytes, kFewest, kMost));
  }
  for (const std::size_t size : sizes) {
    if (measured == Kind::kSend) {
      samples.push_back({static_cast<double>(size), seconds_of_message(ranks, size)});
      continue;
    }
    const CollectiveBenchmark result = benchmark_collective(
        ranks, {.kind = measured, .bytes = size, .shared = true, .seconds = 0.05});
    samples.push_back({static_cast<double>(result.bytes), result.seconds});
  }
}

bool CollectiveCosts::knows(Kind kind, int ranks) const {
  return ranks == 1 || samples_.contains({measured_kind(kind), ranks});
}

double CollectiveCosts::of(Kind kind, int ranks, std::size_t bytes) const {
  if (ranks == 1) return 0;
  const auto found = samples_.find({measured_kind(kind), ranks});
  CONCORD_CHECK(found != samples_.end(), "{} of {} ranks was not measured", name_of(kind), ranks);
  const std::vector<Sample>& samples = found->second;
  const auto size = static_cast<double>(bytes);
  if (samples.size() == 1 || size <= samples[0].bytes) return samples[0].seconds;
  for (std::size_t s = 1; s < samples.size(); ++s) {
    const Sample &low = samples[s - 1], &high = samples[s];
    if (size > high.bytes) continue;
    const double share = (size - low.bytes) / (high.bytes - low.bytes);
    return low.seconds + share * (high.seconds - low.seconds);
  }
  return samples.back().seconds * size / samples.back().bytes;
}

}  // namespace concord::comm

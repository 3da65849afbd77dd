#include "concord/comm/collective_costs.h"

#include <algorithm>

#include "concord/base/error.h"
#include "concord/comm/collective_benchmark.h"

namespace concord::comm {

using Kind = Operation::Kind;

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

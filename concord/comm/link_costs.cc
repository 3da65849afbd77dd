#include "concord/comm/link_costs.h"

#include <bit>
#include <cmath>

#include "concord/comm/algorithm.h"

namespace concord::comm {
namespace {

using Kind = Operation::Kind;

struct Way {
  double bytes_per_second, latency_seconds;
  double message(double bytes) const { return latency_seconds + bytes / bytes_per_second; }
};

double rounds_of(int ranks) { return std::ceil(std::log2(ranks)); }

double all_reduce(const Way& way, int ranks, double bytes, Algorithm algorithm) {
  const double rounds = rounds_of(ranks), others = static_cast<double>(ranks - 1);
  const double volume = 2 * others / ranks * bytes / way.bytes_per_second;
  switch (algorithm) {
    case Algorithm::kHalvingDoubling:
      return 2 * rounds * way.latency_seconds + volume;
    case Algorithm::kChain:  // to the first, and back
      return 2 * others * way.message(bytes);
    default:  // each sends each other its piece, twice
      return 2 * others * way.latency_seconds + volume;
  }
}

double flat(const Way& way, int ranks, Kind kind, double bytes, Algorithm algorithm) {
  if (ranks == 1) return 0;
  const double others = static_cast<double>(ranks - 1), rounds = rounds_of(ranks);
  switch (kind) {
    case Kind::kBarrier:
    case Kind::kAgreement:
      return rounds * way.latency_seconds;
    case Kind::kSend:
    case Kind::kReceive:
      return way.message(bytes);
    case Kind::kBroadcast:
      return rounds * way.message(bytes);
    case Kind::kTreeSum:
    case Kind::kAllReduce:
    case Kind::kMaximum:
      return all_reduce(way, ranks, bytes, algorithm);
    default:
      return others * way.latency_seconds + others / ranks * bytes / way.bytes_per_second;
  }
}

}  // namespace

double seconds_over_links(const LinkedRanks& ranks, Operation::Kind kind, std::size_t bytes) {
  const auto size = static_cast<double>(bytes);
  const int each = ranks.ranks / ranks.hosts;
  // By all of a host at once.
  const Way shared{ranks.bytes_per_second / each, ranks.latency_seconds};
  Topology topology{.transport = "gloo", .size = ranks.ranks};
  for (int r = 0; r < ranks.ranks; ++r) topology.hosts.push_back(r / each);
  const Algorithm algorithm = fastest_algorithm(topology, bytes);
  const bool is_sum = kind == Kind::kTreeSum || kind == Kind::kAllReduce || kind == Kind::kMaximum;
  if (!is_sum || algorithm != Algorithm::kHierarchical) {
    return flat(shared, ranks.ranks, kind, size, algorithm);
  }
  // The ranks of a host have a piece each of its sum, which they add up with those of other hosts,
  // all at once over the link, and tell each other.
  const Way inside{ranks.inside_bytes_per_second, ranks.inside_latency_seconds};
  return 2 * flat(inside, each, Kind::kReduceScatter, size, algorithm) +
         all_reduce(shared, ranks.hosts, size / each, Algorithm::kDirect);
}

}  // namespace concord::comm

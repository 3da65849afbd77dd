#include "concord/comm/algorithm.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <optional>

#include "concord/base/error.h"
#include "concord/base/text.h"

namespace concord::comm {
namespace {

constexpr std::array<std::string_view, 6> kNames = {"auto",  "direct",       "halving_doubling",
                                                    "chain", "hierarchical", "ring"};

// Why it cannot be chosen here; nullopt where it can.
std::optional<std::string> obstacle(Algorithm algorithm, const Topology& topology, bool any_order) {
  if (algorithm == Algorithm::kHalvingDoubling &&
      !std::has_single_bit(static_cast<unsigned>(topology.size))) {
    return fmt::format("is for 2, 4, 8, ... ranks, not for {}", topology.size);
  }
  if (algorithm == Algorithm::kHierarchical) {
    const int each = topology.ranks_of_each_host();
    if (topology.is_one_host()) return "is for several hosts, and here is one";
    if (each == 0) {
      return fmt::format(
          "is for hosts with equally many ranks, one host's after another's; the ranks here are on "
          "hosts number {}",
          fmt::join(topology.hosts, ", "));
    }
    if (each == 1) return "is for hosts with several ranks, and each has one here";
  }
  if (algorithm == Algorithm::kRing && !any_order) {
    return "adds up in an order of its own, so bits depend on ranks: allow it by "
           "parallel.deterministic = false (bench collective: --any-order)";
  }
  return std::nullopt;
}

// The first row that fits, and whose algorithm can be chosen, counts; after the last, direct.
//
// Measured by `concord bench collective --transport T --algorithm A --ranks N --bytes B`, with
// --hosts on two network namespaces joined by veth, and by `mpirun -np N` for mpi; N of 2, 3, 4, 8
// (on hosts 1, 2, 3, 4 each), B of 4 KiB, 64 KiB, 1 MiB, 16 MiB; on the two cores of an EPYC
// (Zen 4), which the ranks shared, with Gloo of Debian 12 and Open MPI 4.1.4. A chain sends the
// fewest messages, which is what small sums cost where ranks wait for cores; its time grows with
// the ranks, so it is not chosen for more than were measured. A ring was nowhere faster than the
// fastest of the others by more than the same measurement varied, so it is only chosen by name.
struct Row {
  std::string_view transport;
  int most_ranks;
  std::size_t most_bytes;
  Algorithm algorithm;
};
constexpr int kAnyRanks = std::numeric_limits<int>::max();
constexpr std::size_t kAnyBytes = std::numeric_limits<std::size_t>::max();
constexpr Row kFastest[] = {
    {"gloo", 4, 16 << 10, Algorithm::kHalvingDoubling},
    {"gloo", 8, 128 << 10, Algorithm::kChain},
    {"gloo", kAnyRanks, kAnyBytes, Algorithm::kHalvingDoubling},
    {"gloo", kAnyRanks, kAnyBytes, Algorithm::kHierarchical},
    {"mpi", kAnyRanks, 128 << 10, Algorithm::kHalvingDoubling},
};

}  // namespace

std::vector<std::string_view> algorithm_names() { return {kNames.begin(), kNames.end()}; }

std::string_view name_of(Algorithm algorithm) {
  return kNames[static_cast<std::size_t>(algorithm)];
}

Algorithm algorithm_of(std::string_view name) {
  const auto found = std::ranges::find(kNames, name);
  if (found == kNames.end()) {
    fail("{} is no algorithm for sums over ranks: expected one of {}", quote(name),
         fmt::join(kNames, ", "));
  }
  return static_cast<Algorithm>(found - kNames.begin());
}

bool Topology::is_one_host() const {
  return std::ranges::all_of(hosts, [&](int host) { return host == hosts[0]; });
}

int Topology::ranks_of_each_host() const {
  if (is_one_host()) return size;
  const auto each = std::ranges::count(hosts, hosts[0]);
  for (std::ptrdiff_t r = 0; r < size; ++r) {
    const auto first = hosts.begin() + r / each * each;
    if (size % each != 0 || hosts[static_cast<std::size_t>(r)] != *first) return 0;
    if (std::ranges::count(hosts, *first) != each) return 0;
  }
  return static_cast<int>(each);
}

void check_algorithm(Algorithm algorithm, const Topology& topology, bool any_order) {
  if (const auto why = obstacle(algorithm, topology, any_order)) {
    fail("algorithm {} {}; expected another algorithm", name_of(algorithm), *why);
  }
}

Algorithm fastest_algorithm(const Topology& topology, std::size_t bytes) {
  for (const Row& row : kFastest) {
    if (row.transport == topology.transport && topology.size <= row.most_ranks &&
        bytes <= row.most_bytes && !obstacle(row.algorithm, topology, /*any_order=*/false)) {
      return row.algorithm;
    }
  }
  return Algorithm::kDirect;
}

}  // namespace concord::comm

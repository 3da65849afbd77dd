#include "concord/parallel/cluster.h"

#include <algorithm>

#include "concord/base/error.h"

namespace concord::parallel {

int Cluster::ranks() const {
  int sum = 0;
  for (const HostKind& kind : kinds) sum += kind.count * kind.ranks;
  return sum;
}

std::vector<RankHost> place_ranks(const Cluster& cluster, int ranks) {
  if (cluster.ranks() < ranks) {
    fail("the cluster has {} ranks, and the job {}: expected hosts for all of them",
         cluster.ranks(), ranks);
  }
  std::vector<RankHost> places;
  int host = 0;
  for (int kind = 0; kind < std::ssize(cluster.kinds); ++kind) {
    const HostKind& of_kind = cluster.kinds[static_cast<std::size_t>(kind)];
    for (int i = 0; i < of_kind.count; ++i, ++host) {
      for (int r = 0; r < of_kind.ranks && std::ssize(places) < ranks; ++r) {
        places.push_back({kind, host});
      }
    }
  }
  return places;
}

const Link& link_between(const Cluster& cluster, const RankHost& one, const RankHost& other) {
  if (one.host == other.host) {
    if (cluster.inside) return *cluster.inside;
    fail("the cluster does not say how fast the ranks of a host are linked: expected [inside]");
  }
  const auto found = cluster.links.find(std::minmax(one.kind, other.kind));
  if (found != cluster.links.end()) return found->second;
  if (cluster.between) return *cluster.between;
  const auto name = [&](const RankHost& place) {
    return cluster.kinds[static_cast<std::size_t>(place.kind)].name;
  };
  fail("the cluster has no link between {} and {}: expected [between], or a [[links]] of these two",
       name(one), name(other));
}

}  // namespace concord::parallel

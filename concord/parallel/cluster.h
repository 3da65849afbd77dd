// Cluster: the hosts of a job that is only looked at, how fast their ranks compute, and what links
// them. It is data; train/cluster_file.h reads it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace concord::parallel {

struct Link {
  double bytes_per_second = 0;
  double latency_seconds = 0;  // of a message of one byte
};

// What a rank that is not this machine's computes with: an op takes its operations or its bytes
// over these, whichever is longer.
struct Processor {
  double flops_per_second = 0;
  double memory_bytes_per_second = 0;
};

// Hosts that are alike.
struct HostKind {
  std::string name;
  int count = 1;
  int ranks = 1;     // of each host
  double speed = 1;  // of its ranks, beside those of this machine; where no processor is given
  std::optional<Processor> processor = {};
};

struct Cluster {
  std::vector<HostKind> kinds;
  std::optional<Link> inside;   // between ranks of one host; none: as measured here
  std::optional<Link> between;  // between hosts, where `links` has no other
  std::map<std::pair<int, int>, Link> links = {};  // between hosts of two kinds, the smaller first

  int ranks() const;
};

// Where the ranks of a job are: ranks in order, host after host, kind after kind.
struct RankHost {
  int kind = 0;
  int host = 0;  // of all
};
// Throws Error where the cluster has fewer.
std::vector<RankHost> place_ranks(const Cluster& cluster, int ranks);

// The link of two ranks: of one host, or of hosts of two kinds. Throws Error, which names both,
// where there is none.
const Link& link_between(const Cluster& cluster, const RankHost& one, const RankHost& other);

}  // namespace concord::parallel

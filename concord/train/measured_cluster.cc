#include "concord/train/measured_cluster.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "concord/base/error.h"
#include "concord/parallel/cluster.h"
#include "concord/train/cluster_file.h"

namespace concord::train {
namespace {

using parallel::Cluster;
using parallel::Link;

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

class Ways {
 public:
  void add(const net::Way& way) {
    bytes_per_second_.push_back(way.bytes_per_second);
    latencies_.push_back(way.latency_seconds);
  }
  std::optional<Link> link() const {
    if (latencies_.empty()) return std::nullopt;
    return Link{median(bytes_per_second_), median(latencies_)};
  }

 private:
  std::vector<double> bytes_per_second_, latencies_;
};

// Of no hosts' links yet.
Cluster hosts_of(std::span<const std::string> hosts, std::span<const int> host_numbers) {
  Cluster cluster;
  std::vector<int> seen;
  for (std::size_t r = 0; r < hosts.size();) {
    std::size_t end = r + 1;
    while (end < hosts.size() && host_numbers[end] == host_numbers[r]) ++end;
    if (std::ranges::count(seen, host_numbers[r]) > 0) {
      fail(
          "the ranks of host {} are not one after another, as a cluster file has them: rank {} is "
          "apart from those before",
          hosts[r], r);
    }
    seen.push_back(host_numbers[r]);
    const int ranks = static_cast<int>(end - r);
    if (!cluster.kinds.empty() && cluster.kinds.back().ranks == ranks) {
      ++cluster.kinds.back().count;
    } else {
      std::string name = hosts[r];
      const auto is_taken = [&](const parallel::HostKind& kind) { return kind.name == name; };
      while (std::ranges::any_of(cluster.kinds, is_taken)) name += "'";
      cluster.kinds.push_back({.name = name, .count = 1, .ranks = ranks});
    }
    r = end;
  }
  return cluster;
}

}  // namespace

std::string measured_cluster_file(std::span<const std::string> hosts,
                                  std::span<const int> host_numbers,
                                  std::span<const net::Way> ways) {
  Cluster cluster = hosts_of(hosts, host_numbers);
  const auto places = parallel::place_ranks(cluster, static_cast<int>(hosts.size()));
  Ways inside, between;
  std::map<std::pair<int, int>, Ways> of_kinds;
  for (const net::Way& way : ways) {
    if (!way.error.empty()) {
      fail("no cluster file is written: rank {} does not reach rank {}", way.from, way.to);
    }
    const parallel::RankHost &from = places[static_cast<std::size_t>(way.from)],
                             &to = places[static_cast<std::size_t>(way.to)];
    if (from.host == to.host) {
      inside.add(way);
    } else {
      between.add(way);
      of_kinds[std::minmax(from.kind, to.kind)].add(way);
    }
  }
  cluster.between = between.link();
  if (cluster.kinds.size() > 1) {
    for (const auto& [kinds, of_two] : of_kinds) cluster.links[kinds] = *of_two.link();
  }
  const std::optional<Link> within = inside.link();
  if (cluster.between) cluster.inside = within;
  std::string text =
      "# As concord preflight has measured it, over TCP: medians.\n\n" + to_toml(cluster);
  if (within && !cluster.between) {
    text += fmt::format(
        "# Ranks of one host share memory, which concord simulate measures. Over TCP:\n"
        "# [inside]\n# bytes_per_second = {}\n# latency_seconds = {}\n",
        within->bytes_per_second, within->latency_seconds);
  }
  return text;
}

}  // namespace concord::train

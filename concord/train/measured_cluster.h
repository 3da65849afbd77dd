// A cluster file (cluster_file.h) of what concord preflight has measured between the ranks of a
// job.
#pragma once

#include <span>
#include <string>

#include "concord/net/preflight.h"

namespace concord::train {

// Hosts in the order of their ranks; those next to each other with equally many are one kind, named
// after the first. A link is the median of its ways: [inside], where there are several hosts (ranks
// of one host alone share memory, which the simulator measures: then it is a comment); [between];
// and
// [[links]] of each two kinds. `hosts`, `host_numbers`: by rank. Throws Error where the ranks of a
// host are not one after another, or a way is blocked.
std::string measured_cluster_file(std::span<const std::string> hosts,
                                  std::span<const int> host_numbers,
                                  std::span<const net::Way> ways);

}  // namespace concord::train

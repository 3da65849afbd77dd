// Before a long job: whether each rank reaches each other by TCP, and how fast.
#pragma once

#include <string>
#include <vector>

#include "concord/net/join.h"

namespace concord::net {

// The way from one rank to another: `from` connects, and sends.
struct Way {
  int from = 0;
  int to = 0;
  double latency_seconds = 0;   // of one message of a byte: half the median time there and back
  double bytes_per_second = 0;  // of a long message
  std::string error;            // why there is no way; "" where there is one
};

// Collective. Tries one way after the other, so that they do not share what they measure; each
// takes about a tenth of a second, and one that is blocked some seconds. Both ends prove that they
// know the job's secret. Returns all ways, by `from` and `to`, on rank 0, and nothing on the
// others.
std::vector<Way> try_all_ways(const Membership& job);

}  // namespace concord::net

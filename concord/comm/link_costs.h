// How long operations of ranks take that are linked by messages, by the algorithm that the job
// would use (algorithm.h) and the usual count of messages: each takes a latency and its bytes over
// the bandwidth (Thakur et al. 2005, "Optimization of collective communication operations in
// MPICH").
#pragma once

#include <cstddef>

#include "concord/comm/operation.h"

namespace concord::comm {

struct LinkedRanks {
  int ranks = 1;
  int hosts = 1;  // of which each has equally many of them
  // Of the slowest link between two of them, shared with whoever uses it at the same time.
  double bytes_per_second = 0, latency_seconds = 0;
  // Within a host; of no meaning where there is one rank of each.
  double inside_bytes_per_second = 0, inside_latency_seconds = 0;
};

// `bytes`: of what one rank holds on the larger side.
double seconds_over_links(const LinkedRanks& ranks, Operation::Kind kind, std::size_t bytes);

}  // namespace concord::comm

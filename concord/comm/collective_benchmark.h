// How fast the ranks of a job do a collective operation together.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "concord/comm/communicator.h"

namespace concord::comm {

struct CollectiveBenchmarkOptions {
  Operation::Kind kind = Operation::Kind::kAllReduce;
  // What one rank holds on the larger side: its numbers to be added, all that is gathered. Rounded
  // up to whole numbers for each rank.
  std::size_t bytes = std::size_t{16} << 20;
  bool shared = true;   // in memory of share(), or elsewhere
  double seconds = 1;   // as many repetitions as these take
  int repetitions = 0;  // or so many, where not 0
};

struct CollectiveBenchmark {
  std::size_t bytes = 0;  // as rounded
  int repetitions = 0;
  // Of one operation, from the time when the first rank could begin to that when the last has its
  // result: median over the repetitions, fastest and slowest.
  double seconds = 0, fastest_seconds = 0, slowest_seconds = 0;
  // bytes / seconds; and the same times the share of the bytes that every rank has to send and
  // receive whatever the algorithm, as in NVIDIA's nccl-tests: 2 (N - 1) / N for an all-reduce,
  // (N - 1) / N for the others, 1 for a broadcast and a message.
  double algorithm_bandwidth = 0, bus_bandwidth = 0;
};

// The kinds that can be measured, and the one of this name. Throws Error for other names.
std::vector<std::string_view> benchmarked_collectives();
Operation::Kind benchmarked_collective(std::string_view name);

// Collective. Checks the result of one operation first: throws Error where it is wrong.
CollectiveBenchmark benchmark_collective(Communicator& ranks,
                                         const CollectiveBenchmarkOptions& options);

}  // namespace concord::comm

// Ranks of a job that are processes of this machine. They are killed when this process ends.
#pragma once

#include <memory>

#include "concord/net/member.h"
#include "concord/net/process.h"
#include "concord/net/rank_group.h"

namespace concord::net {

struct LocalRanksOptions {
  int first = 0;  // the first of them
  int count = 1;
  int size = 1;                      // ranks of the job
  std::vector<std::string> command;  // the program's path and its arguments
  std::vector<Endpoint> store;
  Secret secret;
  sigset_t blocked{};            // signals, for the new processes
  bool collects_output = false;  // what rank 0 prints; else it goes where this process prints
  std::string host;              // for messages; "" for this one
};

// Starts them, each with its share of the cores that this process may use: equally many for each,
// since the number of threads may change bits; where there are fewer cores than ranks, some share
// one. Throws Error where that fails; none is then left.
std::unique_ptr<RankGroup> start_local_ranks(const LocalRanksOptions& options);

}  // namespace concord::net

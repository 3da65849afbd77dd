// What a rank did last, for people who look for why a job has failed.
#pragma once

#include <string>
#include <vector>

#include "concord/comm/communicator.h"

namespace concord::comm {

// A line for each of the last operations, oldest first, such as "step 12: all-reduce of fc.weight,
// 4096 bytes; started 0.21 s ago, began 0.20 s ago, under way". `now`: now_seconds().
std::vector<std::string> described(const std::vector<Record>& records, double now);

}  // namespace concord::comm

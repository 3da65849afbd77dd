// CollectiveCosts: how long the operations of groups of ranks take, of any number of bytes:
// measured at a few sizes and, between and beyond them, in proportion.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "concord/comm/communicator.h"

namespace concord::comm {

class CollectiveCosts {
 public:
  // Collective: times operations of the kind, up to `most_bytes` of what one rank holds on the
  // larger side. Takes about a tenth of a second for each size.
  void measure(Communicator& ranks, Operation::Kind kind, std::size_t most_bytes);
  bool knows(Operation::Kind kind, int ranks) const;
  // Seconds, of a kind and number of ranks that are known; 0 of one rank. Sums of leaves count as
  // all-reduce and reduce-scatter, and a message costs both of its ranks the same.
  double of(Operation::Kind kind, int ranks, std::size_t bytes) const;

 private:
  struct Sample {
    double bytes, seconds;
  };
  std::map<std::pair<Operation::Kind, int>, std::vector<Sample>> samples_;
};

// The kind that is measured in the place of one.
Operation::Kind measured_kind(Operation::Kind kind);

}  // namespace concord::comm

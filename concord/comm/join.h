// A Communicator for the ranks of a job, by what carries their words: memory that they share, or a
// transport of messages.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "concord/comm/communicator.h"
#include "concord/net/store.h"

namespace concord::comm {

struct JoinOptions {
  int rank = 0;
  int size = 1;
  std::vector<int> hosts = {};   // by rank, a number for each machine; empty: all are on this one
  double timeout_seconds = 300;  // for each operation
  std::string transport = "auto";
  std::string algorithm = "auto";  // for sums (reduction.h)
  bool any_order = false;          // of sums: faster where terms or ranks are uneven
};

// "auto": shm on one host, gloo on several. "shm" with an algorithm other than auto and direct:
// messages through shared memory, since only direct sums read in place what others have.
std::vector<std::string_view> transport_names();
// What auto stands for.
std::string chosen_transport(const JoinOptions& options);
// Whether ranks read in place what others have.
bool reads_in_place(const JoinOptions& options);
// How an operation of so many bytes is done: "direct", "ring".
std::string_view chosen_algorithm(const JoinOptions& options, Operation::Kind kind,
                                  std::size_t bytes);

// Collective; the ranks find each other in the store, which outlives the communicator. Throws Error
// for a name that there is not, for what cannot be combined, or where one of the ranks does not
// come before the timeout.
std::unique_ptr<Communicator> join(const JoinOptions& options, net::StoreClient& store);

}  // namespace concord::comm

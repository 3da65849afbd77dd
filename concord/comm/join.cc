#include "concord/comm/join.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "concord/base/text.h"
#include "concord/comm/shared_memory_communicator.h"
#include "concord/comm/transport_communicator.h"

namespace concord::comm {

std::vector<std::string_view> transport_names() { return {"auto", "shm", "gloo", "mpi"}; }

std::string chosen_transport(const JoinOptions& options) {
  const std::vector<std::string_view> known = transport_names();
  if (std::ranges::find(known, options.transport) == known.end()) {
    fail("{} is no transport: expected one of {}", quote(options.transport),
         fmt::join(known, ", "));
  }
  if (options.transport != "auto") return options.transport;
  return options.one_host ? "shm" : "gloo";
}

std::unique_ptr<Communicator> join(const JoinOptions& options, net::StoreClient& store) {
  const std::string transport = chosen_transport(options);
  const Algorithm algorithm = algorithm_of(options.algorithm);
  if (transport == "shm" && (algorithm == Algorithm::kAuto || algorithm == Algorithm::kDirect)) {
    return join_by_shared_memory({options.rank, options.size, options.timeout_seconds}, store);
  }
  return join_by_transport({.rank = options.rank,
                            .size = options.size,
                            .timeout_seconds = options.timeout_seconds,
                            .transport = transport,
                            .algorithm = algorithm},
                           store);
}

}  // namespace concord::comm

#include "concord/comm/join.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "concord/base/deadline.h"
#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/comm/algorithm.h"
#include "concord/comm/reduction.h"
#include "concord/comm/shared_memory_communicator.h"
#include "concord/comm/transport_communicator.h"
#include "concord/net/rendezvous.h"

namespace concord::comm {
namespace {

Topology topology_of(const JoinOptions& options) {
  return {.transport = chosen_transport(options), .size = options.size, .hosts = options.hosts};
}

// Ranks that take different ways would wait for each other.
void check_same_way(const JoinOptions& options, net::StoreClient& store) {
  const std::string own =
      fmt::format("transport {} and algorithm {}", chosen_transport(options), options.algorithm);
  net::Rendezvous rendezvous("way", options.rank, store, Deadline::in(options.timeout_seconds));
  rendezvous.announce(own);
  for (int r = 0; r < options.size; ++r) {
    const std::string other = rendezvous.of(r);
    if (other != own) fail("rank {} has {}, and rank {} has {}", options.rank, own, r, other);
  }
}

}  // namespace

std::vector<std::string_view> transport_names() { return {"auto", "shm", "gloo", "mpi"}; }

std::string chosen_transport(const JoinOptions& options) {
  const std::vector<std::string_view> known = transport_names();
  if (std::ranges::find(known, options.transport) == known.end()) {
    fail("{} is no transport: expected one of {}", quote(options.transport),
         fmt::join(known, ", "));
  }
  if (options.transport != "auto") return options.transport;
  return Topology{.size = options.size, .hosts = options.hosts}.is_one_host() ? "shm" : "gloo";
}

bool reads_in_place(const JoinOptions& options) {
  const Algorithm algorithm = algorithm_of(options.algorithm);
  return chosen_transport(options) == "shm" &&
         (algorithm == Algorithm::kAuto || algorithm == Algorithm::kDirect);
}

std::string_view chosen_algorithm(const JoinOptions& options, Operation::Kind kind,
                                  std::size_t bytes) {
  if (reads_in_place(options)) return name_of(Algorithm::kDirect);
  switch (kind) {
    case Operation::Kind::kBarrier:
    case Operation::Kind::kAgreement:
      return "dissemination";
    case Operation::Kind::kBroadcast:
      return Reduction::broadcasts_by_tree(options.size, bytes) ? "binomial_tree" : "chain";
    case Operation::Kind::kAllReduce:
    case Operation::Kind::kTreeSum:
      break;
    default:
      return name_of(Algorithm::kDirect);
  }
  const Algorithm algorithm = algorithm_of(options.algorithm);
  if (algorithm != Algorithm::kAuto) return name_of(algorithm);
  return name_of(fastest_algorithm(topology_of(options), bytes));
}

std::unique_ptr<Communicator> join(const JoinOptions& options, net::StoreClient& store) {
  const Topology topology = topology_of(options);
  const Algorithm algorithm = algorithm_of(options.algorithm);
  check_same_way(options, store);
  check_algorithm(algorithm, topology, options.any_order);
  if (reads_in_place(options)) {
    return join_by_shared_memory({options.rank, options.size, options.timeout_seconds}, store);
  }
  return join_by_transport({.rank = options.rank,
                            .topology = topology,
                            .timeout_seconds = options.timeout_seconds,
                            .algorithm = algorithm,
                            .any_order = options.any_order},
                           store);
}

}  // namespace concord::comm

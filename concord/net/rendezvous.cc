#include "concord/net/rendezvous.h"

#include "concord/net/transport.h"

namespace concord::net {

Rendezvous::Rendezvous(std::string_view name, int rank, StoreClient& store, Deadline deadline,
                       const AxisGroup& group)
    : group_(group),
      name_(group.key() + std::string(name)),
      rank_(rank),
      store_(store),
      deadline_(deadline),
      count_(store.add(fmt::format("{} of rank {}", name_, rank), 1, deadline)) {}

void Rendezvous::announce(std::string_view value) { store_.set(key(rank_), value, deadline_); }

std::string Rendezvous::of(int rank) {
  try {
    return store_.get(key(rank), deadline_);
  } catch (const Error& error) {
    throw PeerError(group_.in_job(rank), PeerError::Kind::kLate,
                    fmt::format("rank {} did not come: {}", group_.in_job(rank), error.what()));
  }
}

std::string Rendezvous::name() const { return fmt::format("{} {}", name_, count_); }

std::string Rendezvous::key(int rank) const { return fmt::format("{} of rank {}", name(), rank); }

}  // namespace concord::net

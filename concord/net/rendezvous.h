// What the ranks of a job tell each other through the store before they are connected otherwise.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "concord/base/deadline.h"
#include "concord/net/axis_group.h"
#include "concord/net/store.h"

namespace concord::net {

class Rendezvous {
 public:
  // Collective in so far as every rank has as many of one name, in the same order.
  // `rank`: in `group`, whose ranks alone take part.
  Rendezvous(std::string_view name, int rank, StoreClient& store, Deadline deadline,
             const AxisGroup& group = {});

  // Of this one, for other keys in the store: no other has it.
  std::string name() const;

  void announce(std::string_view value);
  // Waits until that rank has announced something. Throws PeerError where it does not.
  std::string of(int rank);

 private:
  std::string key(int rank) const;

  AxisGroup group_;
  std::string name_;
  int rank_;
  StoreClient& store_;
  Deadline deadline_;
  std::int64_t count_;  // of those of this name
};

}  // namespace concord::net

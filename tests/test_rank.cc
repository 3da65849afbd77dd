// A rank of a test, as a process: test_rank BACKEND WHAT. Ends with 0 where all was as it should
// be.
//
// BACKEND is a transport, for
//   conformance   does what every transport must do (net/test_transports.h)
//   wait          sends rank 0 a byte, and waits to be killed
//   lengths       rank 0 waits for 64 bytes from rank 1, which sends 65
//   stop, die     rank 1 stops or kills itself, and the others wait for a byte from it
// and a transport or "direct" for what ranks do together:
//   collectives   does what every communicator must do (comm/test_communicators.h), and so do
//                 groups of 4 and of 8 ranks
//   agree         makes one agreement
//   agree-stop, agree-die   and stops or kills itself then
//   groups-stop, groups-die   splits 4 ranks first, along data and tensor
#include <unistd.h>

#include <csignal>
#include <string>

#include "concord/base/log.h"
#include "concord/comm/shared_memory_communicator.h"
#include "concord/comm/test_communicators.h"
#include "concord/comm/transport_communicator.h"
#include "concord/net/join.h"
#include "concord/net/member.h"
#include "concord/net/test_transports.h"

namespace concord {
namespace {

constexpr double kSeconds = 60;

struct Place {
  int rank, size;
  std::unique_ptr<net::StoreServer> server;
  std::unique_ptr<net::StoreClient> store;
};

Place find_place() {
  if (const auto member = net::Member::from_environment()) {  // started by a test
    return {
        member->rank, member->size, nullptr,
        std::make_unique<net::StoreClient>(member->secret, member->store, Deadline::in(kSeconds))};
  }
  std::optional<net::Membership> member = net::join_job(kSeconds);
  if (!member) fail("nobody has started this as one rank of many");
  return {member->rank, member->size, std::move(member->server), std::move(member->store)};
}

void send_messages(net::Transport& transport, const std::string& what) {
  net::Bytes byte(1);
  if (what == "conformance") {
    for (const auto& [name, body] : net::conformance()) body(transport);
  } else if (what == "wait") {
    transport.wait(transport.send(0, byte), Deadline::in(kSeconds));
    pause();
  } else if (what == "lengths") {
    net::Bytes message(transport.rank() == 0 ? 64 : 65);
    transport.wait(
        transport.rank() == 0 ? transport.receive(1, message) : transport.send(0, message),
        Deadline::in(5));
  } else if (what == "stop" || what == "die") {
    if (transport.rank() == 1) raise(what == "stop" ? SIGSTOP : SIGKILL);
    transport.wait(transport.receive(1, byte), Deadline::in(1));
  } else {
    fail("{} is unknown", what);
  }
}

void work_together(comm::Communicator& ranks, const std::string& what) {
  if (what == "collectives") {
    for (const std::size_t count : {1, 100, 30011}) {
      for (const bool shared : {false, true}) comm::check_collectives(ranks, count, shared);
    }
    std::vector<std::int64_t> ends;
    for (int r = 0; r < ranks.size(); ++r) ends.push_back(8 * (r + 1) / ranks.size());
    comm::check_tree_sum(ranks, ends, 5000);
    if (ranks.size() % 4 == 0) {
      const Mesh mesh{{{"data", 2}, {"tensor", ranks.size() / 2}}};
      comm::check_groups(ranks, mesh, 5000);
    }
    return;
  }
  if (what.starts_with("groups")) {
    const Mesh mesh{{{"data", 2}, {"tensor", 2}}};
    for (const MeshAxis& axis : mesh.axes) ranks.split(mesh, axis.name);
  }
  ranks.any_of(0);
  if (what.ends_with("-die")) raise(SIGKILL);
  if (what.ends_with("-stop")) raise(SIGSTOP);
}

void run(const std::string& backend, const std::string& what) {
  const Place place = find_place();
  if (what != "collectives" && !what.starts_with("agree") && !what.starts_with("groups")) {
    const auto transport = net::make_transport(backend, {.rank = place.rank, .size = place.size},
                                               *place.store, Deadline::in(kSeconds));
    return send_messages(*transport, what);
  }
  const auto ranks =
      backend == "direct"
          ? comm::join_by_shared_memory({place.rank, place.size, kSeconds}, *place.store)
          : comm::join_by_transport({.rank = place.rank,
                                     .topology = {backend, place.size},
                                     .timeout_seconds = kSeconds},
                                    *place.store);
  work_together(*ranks, what);
}

}  // namespace
}  // namespace concord

int main(int count, char** arguments) {
  try {
    if (count != 3) concord::fail("usage: test_rank BACKEND WHAT");
    concord::run(arguments[1], arguments[2]);
  } catch (const std::exception& error) {
    concord::log("{}", error.what());
    return 1;
  }
}

// A rank of a test, as a process: transport_rank TRANSPORT WHAT. Its place is in the environment,
// as for any rank; under mpirun it is MPI's. Ends with 0 where all was as it should be.
//   conformance   does what every transport must do (test_transports.h)
//   wait          sends rank 0 a byte, and waits to be killed
//   lengths       rank 0 waits for 64 bytes from rank 1, which sends 65
//   stop, die     rank 1 stops or kills itself, and the others wait for a byte from it
#include <unistd.h>

#include <csignal>
#include <string>

#include "concord/base/log.h"
#include "concord/net/join.h"
#include "concord/net/member.h"
#include "concord/net/test_transports.h"

namespace concord::net {
namespace {

std::unique_ptr<Transport> join(const std::string& name) {
  constexpr double kSeconds = 60;
  const Deadline deadline = Deadline::in(kSeconds);
  if (const auto member = Member::from_environment()) {  // started by a test
    StoreClient store(member->secret, member->store, deadline);
    return make_transport(name, {.rank = member->rank, .size = member->size}, store, deadline);
  }
  const std::optional<Membership> member = join_job(kSeconds);
  if (!member) fail("nobody has started this as one rank of many");
  return make_transport(name, {.rank = member->rank, .size = member->size}, *member->store,
                        deadline);
}

void run(Transport& transport, const std::string& what) {
  Bytes byte(1);
  if (what == "conformance") {
    for (const auto& [name, body] : conformance()) body(transport);
  } else if (what == "wait") {
    transport.wait(transport.send(0, byte), Deadline::in(60));
    pause();
  } else if (what == "lengths") {
    Bytes message(transport.rank() == 0 ? 64 : 65);
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

}  // namespace
}  // namespace concord::net

int main(int count, char** arguments) {
  using namespace concord::net;
  try {
    if (count != 3) concord::fail("usage: transport_rank TRANSPORT WHAT");
    const auto transport = join(arguments[1]);
    run(*transport, arguments[2]);
  } catch (const std::exception& error) {
    concord::log("{}", error.what());
    return 1;
  }
}

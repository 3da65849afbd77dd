// What `concord launch --hosts` starts on each host: it finds out where the launcher's store is
// reached, starts the host's ranks, and passes on what they say. When the launcher is gone, so are
// the ranks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "concord/net/secret.h"
#include "concord/net/socket.h"

namespace concord::net {

// What an agent is told; the secret comes this way, and never stands in a command line.
struct AgentJob {
  std::string directory;  // in which the ranks run
  std::vector<std::string> command;
  int first = 0;  // of its ranks
  int count = 1;
  int size = 1;  // of the job
  Secret secret;
  std::vector<Endpoint> store;  // where the launcher holds it, perhaps
  std::string host;             // what the launcher calls this machine

  std::string to_json() const;
  // Throws Error for text that to_json has not made.
  static AgentJob from_json(std::string_view text);
};

// Serves the launcher at the other end of standard input and output, until the ranks have ended.
// Returns an exit code.
int run_agent(std::string_view version);

}  // namespace concord::net

// Ranks of a job on another host, as an agent there runs them (agent.h).
#pragma once

#include <signal.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "concord/net/agent.h"
#include "concord/net/rank_group.h"

namespace concord::net {

class RemoteRanks : public RankGroup {
 public:
  // At which of the job's places the agent reaches the store; nullopt until it has answered.
  virtual const std::optional<std::vector<std::string>>& reached() const = 0;
  // Begins, with the store at this place.
  virtual void start(const std::string& store) = 0;
};

struct RemoteRanksOptions {
  AgentJob job;
  std::vector<std::string> program;  // runs a command on a host: `PROGRAM HOST COMMAND`
  std::string agent;                 // the path of concord there
  std::string version;               // that it must have
  sigset_t blocked{};                // signals, for the new process
};

// Starts the program. The agent's first answers come through collect(), which throws Error that
// names the host where it is not reached, or has another version. An agent that is lost later ends
// its ranks with exit code 255.
std::unique_ptr<RemoteRanks> start_remote_ranks(RemoteRanksOptions options);

}  // namespace concord::net

// Starts the ranks of a job and watches over them.
//
// They run on this machine, or on hosts where an agent is started (agent.h). Rank 0 has this
// process's standard output, and of this machine also its input. What the ranks write to standard
// error appears on this process's (console.h), and is kept in files where the job fails. SIGINT and
// SIGTERM are passed on to every rank, which stops (Ctrl-Z) and goes on with this process, too.
// When one fails the others get time to end by themselves, and rank 0 to save; then they are
// killed. So they are when this process ends.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace concord::net {

struct HostRanks {
  std::string host;
  int ranks = 1;
};
// "a:2,b" -> 2 ranks on a, 1 on b; an IPv6 address stands in brackets. Throws Error.
std::vector<HostRanks> parse_hosts(const std::string& text);

struct LaunchOptions {
  int ranks = 1;                     // of this machine
  std::vector<HostRanks> hosts;      // in place of it, ranks in their order; empty: none
  std::string address;               // of this machine, for the hosts; "": one that all reach
  std::vector<std::string> program;  // runs a command on a host: `PROGRAM HOST COMMAND`
  std::string version;               // that agents must have
  std::vector<std::string> command;  // the program's path and its arguments
  std::filesystem::path directory;   // of the job: where it exists, logs are kept in it
  double first_grace_seconds = 900;  // for rank 0, once a rank has failed
  double grace_seconds = 5;          // for the others, once rank 0 has ended besides
};

// The exit code of a rank that tells, in place of 1, that rank 0 has ended or does not come: nobody
// waits then for what rank 0 may have to save.
constexpr int kFirstIsLost = 75;

// Returns when all ranks have ended: 0, or the exit code of the first that failed (128 and the
// signal where one ended it, which is said). Throws Error when they cannot be started.
int launch(const LaunchOptions& options);

}  // namespace concord::net

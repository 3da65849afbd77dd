// Commands that start ranks.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "concord/base/error.h"
#include "concord/cli/command.h"
#include "concord/comm/join.h"
#include "concord/net/join.h"

namespace concord::cli {

// Where ranks are to run, as a command line says.
struct RanksArguments {
  int ranks = 0;  // 0: not given, as for the others ""
  std::string hosts, address, remote_command;

  void add_to(CLI::App& command);
  bool are_given() const { return ranks > 0 || !hosts.empty(); }
  // Runs `concord WORDS...` as these ranks; `directory` is the job's (net/launch.h). Throws Exit
  // where one fails.
  void launch(const std::vector<std::string>& words, const std::string& directory) const;
};

// The job of which this process is a rank, and what it does with the others. Null where it is
// alone.
struct JoinedRanks {
  std::optional<net::Membership> job;
  std::unique_ptr<comm::Communicator> communicator;
  comm::JoinOptions how;
  std::string description;  // "4 ranks by Open MPI on 2 hosts, gloo"; "" alone

  // Where `work` throws Error, the job has failed: this is told once, and Exit is thrown.
  template <typename Work>
  auto run(Work work) const {
    try {
      return work();
    } catch (const Error& error) {
      if (!job) throw;
      log_last_operations();
      tell(error);
    } catch (...) {
      if (job) log_last_operations();
      throw;
    }
  }

 private:
  // Where concord launch keeps logs, what this rank did last goes to its.
  void log_last_operations() const;
  [[noreturn]] void tell(const Error& error) const;
  bool is_told_by_first() const;
};
// Collective. `how`: the transport, the algorithm and the timeout. Throws Error where a rank does
// not come before that.
JoinedRanks join_ranks(const ParallelConfig& how);

}  // namespace concord::cli

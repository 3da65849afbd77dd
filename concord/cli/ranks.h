// Commands that start ranks.
#pragma once

#include <string>
#include <vector>

#include "concord/cli/command.h"

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

}  // namespace concord::cli

// Starts the ranks of a job as processes of this machine and watches over them.
//
// Rank 0 has this process's terminal and standard streams. What the others write appears on
// standard error line by line, equal lines of several ranks as one ("ranks 1-3: ..."). Each rank
// may run on its share of the cores, equally many for each. SIGINT and SIGTERM are passed on to
// every rank. When one fails the others get time to end by themselves, and rank 0 to save; then
// they are killed. So they are when this process ends.
#pragma once

#include <string>
#include <vector>

namespace concord::net {

struct LaunchOptions {
  int ranks = 1;
  std::vector<std::string> command;  // the program's path and its arguments
  double first_grace_seconds = 900;  // for rank 0, once a rank has failed
  double grace_seconds = 20;         // for the others, once rank 0 has ended besides
};

// Returns when all ranks have ended: 0, or the exit code of the first that failed (128 and the
// signal where one ended it, which the log says). Throws Error when they cannot be started.
int launch(const LaunchOptions& options);

}  // namespace concord::net

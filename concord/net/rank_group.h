// Some ranks of a job, which run on one machine, as those see them who watch over the job.
#pragma once

#include <poll.h>

#include <string>
#include <string_view>
#include <vector>

namespace concord::net {

// Is told what happens to ranks.
class RankListener {
 public:
  virtual ~RankListener() = default;
  // Bytes on standard error; of ranks but the first also those on standard output.
  virtual void said(int rank, std::string_view bytes) = 0;
  // Bytes that rank 0 has written to standard output, where that is not this process's own.
  virtual void printed(std::string_view bytes) = 0;
  // A rank has ended, with a status as waitpid(2) tells it. `process`: "process 4711 on a".
  virtual void ended(int rank, int status, const std::string& process) = 0;
  // A line about the group itself.
  virtual void remarked(const std::string& line) = 0;
};

class RankGroup {
 public:
  virtual ~RankGroup() = default;

  // What poll(2) is to wait for.
  virtual void add_to(std::vector<pollfd>& entries) const = 0;
  // Tells what has happened; does not wait.
  virtual void collect(RankListener& listener) = 0;
  // To all that are still running.
  virtual void send(int signal) = 0;
};

}  // namespace concord::net

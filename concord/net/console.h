// Where the ranks of a job are heard: what rank 0 says appears on standard error as it comes, lines
// of the others as "rank 1: ...", equal ones once ("ranks 1-3: ..."), and everything in the logs.
// Used by one thread.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "concord/net/lines.h"
#include "concord/net/rank_logs.h"

namespace concord::net {

class Console {
 public:
  explicit Console(int ranks);

  // Bytes that a rank has written.
  void said(int rank, std::string_view bytes);
  // It says no more: a line that has not ended is one.
  void closed(int rank);
  // A line of the launcher's own.
  void say(const std::string& line);

  // Prints what was held back long enough, or everything.
  void print(bool everything);
  // For poll(2): when print is to be called next; -1 for never.
  int milliseconds_left() const { return lines_.empty() ? -1 : 100; }

  // The job has failed: says where the logs lie (RankLogs::keep).
  void keep_logs(const std::filesystem::path& directory);

 private:
  std::string_view shown(std::string_view bytes);
  void write(std::string_view bytes);
  void print_line(const std::string& line);
  void add(int rank, const std::vector<std::string>& lines);

  bool terminal_;
  bool amid_line_ = false;  // rank 0 is, on standard error
  bool amid_log_ = false;   // in a line that is for its log alone
  std::string shown_;
  std::vector<LineSplitter> splitters_;
  Lines lines_;
  RankLogs logs_;
};

}  // namespace concord::net

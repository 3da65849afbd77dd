// What each rank of a job has said, in a file of its own: rank0.log, rank1.log, ... They lie in a
// temporary folder until the job has ended. Where one cannot be written, the log says so once, and
// the job goes on without.
#pragma once

#include <filesystem>
#include <string_view>

namespace concord::net {

class RankLogs {
 public:
  explicit RankLogs(int ranks);
  ~RankLogs();  // removes those that were not kept
  RankLogs(const RankLogs&) = delete;
  RankLogs& operator=(const RankLogs&) = delete;

  void write(int rank, std::string_view text);

  // For a job that has failed: moves them to `directory`/logs, in the place of an earlier job's,
  // where the directory exists, and else leaves them in the temporary folder. Returns where they
  // lie; "" where there are none.
  std::filesystem::path keep(const std::filesystem::path& directory);

 private:
  std::filesystem::path path_of(int rank) const;
  void give_up(std::string_view why);

  std::filesystem::path folder_;  // "" where there is none, or it is no longer this one's
  bool complete_ = true;
};

}  // namespace concord::net

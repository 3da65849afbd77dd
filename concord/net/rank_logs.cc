#include "concord/net/rank_logs.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/log.h"

namespace concord::net {
namespace {

namespace fs = std::filesystem;

bool is_log(const fs::path& path) {
  const std::string name = path.filename();
  return name.starts_with("rank") && name.ends_with(".log");
}

// By copying: the two may be different file systems.
void move_logs(const fs::path& from, const fs::path& to) {
  fs::create_directories(to);
  for (const fs::directory_entry& entry : fs::directory_iterator(to)) {
    if (is_log(entry.path())) fs::remove(entry.path());
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    fs::copy_file(entry.path(), to / entry.path().filename());
  }
  fs::remove_all(from);
}

}  // namespace

RankLogs::RankLogs(int ranks) {
  std::error_code error;
  const fs::path parent = fs::temp_directory_path(error);
  std::string name = (parent / "concord-job-XXXXXX").string();
  if (error || mkdtemp(name.data()) == nullptr) {
    give_up(fmt::format("cannot create a folder in {}: {}", parent.string(),
                        error ? error.message() : std::strerror(errno)));
    return;
  }
  folder_ = name;
  for (int rank = 0; rank < ranks; ++rank) write(rank, "");
}

RankLogs::~RankLogs() {
  std::error_code ignored;
  if (!folder_.empty()) fs::remove_all(folder_, ignored);
}

fs::path RankLogs::path_of(int rank) const { return folder_ / fmt::format("rank{}.log", rank); }

void RankLogs::write(int rank, std::string_view text) {
  if (!complete_) return;
  try {
    OutputFile(path_of(rank), OutputFile::Mode::kAppend).write(text);
  } catch (const Error& error) {
    give_up(error.what());
  }
}

void RankLogs::give_up(std::string_view why) {
  log("{}: what each rank says is not kept in a file; set TMPDIR to a folder that has room", why);
  complete_ = false;
}

fs::path RankLogs::keep(const fs::path& directory) {
  if (!complete_) return "";
  fs::path kept = std::exchange(folder_, "");
  std::error_code error;
  if (directory.empty() || !fs::is_directory(directory, error)) return kept;
  try {
    move_logs(kept, directory / "logs");
    return directory / "logs";
  } catch (const fs::filesystem_error& problem) {
    log("the ranks' logs stay where they are: {}", problem.what());
    return kept;
  }
}

}  // namespace concord::net

// A file by which rank 0 tells the other ranks of its job where the rendezvous store is, and hands
// them the job's secret, where nobody else does. Only its user can read it (mode 0600), and others'
// files are not believed.
//
// Ranks of one machine meet in $XDG_RUNTIME_DIR, or else in /tmp; those of several in
// ~/.cache/concord/jobs ($XDG_CACHE_HOME), which must then be a folder that all of them see, as it
// is on clusters.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "concord/net/secret.h"
#include "concord/net/socket.h"

namespace concord::net {

struct JobEntry {
  Secret secret;
  std::vector<Endpoint> store;
};

// `job`: its name among this user's.
std::filesystem::path job_file_path(std::string_view job, bool one_host);

// What such a file says; nullopt for what none of this version does. Throws Error for a secret or a
// store that makes no sense; `source` is what is named then.
std::optional<JobEntry> parse_job_file(const std::string& text, const std::string& source);

// Throws Error where the file belongs to another user, or others may read it; nullopt where there
// is none that can be read yet.
std::optional<JobEntry> read_job_file(const std::filesystem::path& path);

// Rank 0's: there from its making until it is destroyed.
class JobFile {
 public:
  // Files beside it whose process has ended are removed. Throws Error where a process that runs has
  // made one of this name, or it cannot be written.
  JobFile(std::filesystem::path path, const JobEntry& entry);
  ~JobFile();
  JobFile(const JobFile&) = delete;
  JobFile& operator=(const JobFile&) = delete;

 private:
  std::filesystem::path path_;
};

}  // namespace concord::net

#include "concord/net/job_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "concord/base/descriptor.h"
#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/text.h"
#include "concord/net/member.h"
#include "concord/net/process.h"

// The file: a line each for its kind, the machine's boot, the process, the secret and the store.

namespace concord::net {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kKind = "concord job 1";

std::string prefix() { return fmt::format("concord-{}-", geteuid()); }

// Of this user, and of nobody else.
bool is_private_folder(const fs::path& path) {
  struct stat status;
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode) &&
         status.st_uid == geteuid() && (status.st_mode & 077) == 0;
}

// Differs from machine to machine, and from one start of it to the next.
std::string boot() {
  std::string text = read_file("/proc/sys/kernel/random/boot_id", 1 << 10);
  return text.substr(0, text.find('\n'));
}

struct Content {
  std::string boot, process, secret, store;
};

// nullopt: nothing of this version.
std::optional<Content> parse_content(const std::string& text) {
  std::istringstream lines(text);
  std::string kind;
  Content content;
  std::getline(lines, kind);
  for (std::string* line : {&content.boot, &content.process, &content.secret, &content.store}) {
    if (!std::getline(lines, *line)) return std::nullopt;
  }
  return kind == kKind ? std::optional(content) : std::nullopt;
}

// nullopt: not there, or nothing of this version.
std::optional<Content> read_content(const fs::path& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file.is_open() && errno == ENOENT) return std::nullopt;
  struct stat status;
  if (!file.is_open() || fstat(file.descriptor(), &status) != 0) {
    fail("cannot open {}: {}", path.string(), std::strerror(errno));
  }
  if (!S_ISREG(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 077) != 0) {
    fail("{} is not this user's own file that nobody else may read: it is not believed; remove it",
         path.string());
  }
  char bytes[1 << 16];
  const ssize_t count = read(file.descriptor(), bytes, sizeof bytes);
  return parse_content(std::string(bytes, count > 0 ? static_cast<std::size_t>(count) : 0));
}

JobEntry entry_of(const Content& content, const std::string& source) {
  return {Secret::from_hex(content.secret),
          parse_endpoints(content.store, "the store in " + source)};
}

// Whether the process that made the file has ended; not where it is another machine's.
bool is_stale(const Content& content) {
  if (content.boot != boot()) return false;
  const auto process = static_cast<pid_t>(std::atoi(content.process.c_str()));
  return identity_of(process) != content.process;
}

// Of jobs that were killed.
void remove_stale(const fs::path& folder) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (!entry.path().filename().string().starts_with(prefix())) continue;
    try {
      const std::optional<Content> content = read_content(entry.path());
      if (content && is_stale(*content)) fs::remove(entry.path(), error);
    } catch (const Error&) {  // not this user's
    }
  }
}

}  // namespace

fs::path job_file_path(std::string_view job, bool one_host) {
  std::string name = prefix();
  for (const char c : job.substr(0, 200)) {
    name += std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' ? c : '_';
  }
  const auto variable = [](const char* key) -> fs::path {
    const char* const value = std::getenv(key);
    return value == nullptr ? "" : value;
  };
  if (one_host) {
    const fs::path runtime = variable("XDG_RUNTIME_DIR");
    return (is_private_folder(runtime) ? runtime : fs::path("/tmp")) / name;
  }
  fs::path cache = variable("XDG_CACHE_HOME");
  if (!cache.is_absolute()) cache = variable("HOME") / ".cache";
  return cache / "concord" / "jobs" / name;
}

std::optional<JobEntry> parse_job_file(const std::string& text, const std::string& source) {
  const std::optional<Content> content = parse_content(text);
  return content ? std::optional(entry_of(*content, source)) : std::nullopt;
}

std::optional<JobEntry> read_job_file(const fs::path& path) {
  const std::optional<Content> content = read_content(path);
  return content ? std::optional(entry_of(*content, path.string())) : std::nullopt;
}

JobFile::JobFile(fs::path path, const JobEntry& entry) : path_(std::move(path)) {
  std::error_code error;
  fs::create_directories(path_.parent_path(), error);
  remove_stale(path_.parent_path());
  const std::string text = fmt::format("{}\n{}\n{}\n{}\n{}\n", kKind, boot(), identity_of(getpid()),
                                       entry.secret.to_hex(), to_string(entry.store));
  // Seen whole or not at all: under a name of its own first. Of an earlier try nothing is there.
  const std::string temporary = fmt::format("{}.{}.tmp", path_.string(), getpid());
  unlink(temporary.c_str());
  const Descriptor file(
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.is_open() ||
      write(file.descriptor(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    const int reason = errno;
    if (file.is_open()) unlink(temporary.c_str());
    fail("cannot write {}, by which the ranks of this job find each other: {}", path_.string(),
         std::strerror(reason));
  }
  const bool is_new = link(temporary.c_str(), path_.c_str()) == 0;
  const int reason = errno;
  unlink(temporary.c_str());
  if (is_new) return;
  fail("cannot make {}, by which the ranks of this job find each other: {}{}", path_.string(),
       std::strerror(reason),
       reason == EEXIST
           ? "; it belongs to a job that is running, or to one of another machine that "
             "was killed: remove it in that case"
           : "");
}

JobFile::~JobFile() { unlink(path_.c_str()); }

}  // namespace concord::net

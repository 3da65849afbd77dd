#include "concord/base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "concord/base/error.h"

namespace concord {
namespace {

[[noreturn]] void fail_on(const char* action, const std::filesystem::path& path) {
  fail("cannot {} {}: {}", action, path.string(), std::strerror(errno));
}

// Until there is something to read from a pipe, or its writer has closed it.
void wait_for_writer(int descriptor, const std::filesystem::path& path) {
  constexpr int kMilliseconds = 10'000;
  struct pollfd pipe {
    descriptor, POLLIN, 0
  };
  int ready = 0;
  do ready = ::poll(&pipe, 1, kMilliseconds);
  while (ready < 0 && errno == EINTR);
  if (ready < 0) fail_on("read", path);
  if (ready == 0) {
    fail("cannot read {}: nobody has written to this pipe for {} seconds", path.string(),
         kMilliseconds / 1000);
  }
}

}  // namespace

bool file_exists(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

std::string read_file(const std::filesystem::path& path, std::size_t limit) {
  // Opening a pipe that nobody writes to would wait without end.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) fail_on("open", path);
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } closer{descriptor};
  struct stat status;
  if (::fstat(descriptor, &status) != 0) fail_on("read", path);
  if (S_ISDIR(status.st_mode)) fail("cannot read {}: it is a directory", path.string());
  if (!S_ISREG(status.st_mode) && !S_ISFIFO(status.st_mode)) {
    fail("cannot read {}: it is neither a file nor a pipe", path.string());
  }
  if (S_ISFIFO(status.st_mode)) wait_for_writer(descriptor, path);
  if (::fcntl(descriptor, F_SETFL, 0) != 0) fail_on("read", path);
  std::string bytes;
  if (status.st_size > 0 && static_cast<std::size_t>(status.st_size) <= limit) {
    bytes.reserve(static_cast<std::size_t>(status.st_size));
  }
  char block[1 << 16];
  while (true) {
    const ssize_t count = ::read(descriptor, block, sizeof(block));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_on("read", path);
    if (count == 0) return bytes;
    bytes.append(block, static_cast<std::size_t>(count));
    if (bytes.size() > limit)
      fail("{} is larger than the {} bytes expected here", path.string(), limit);
  }
}

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
  const std::filesystem::path temporary = fmt::format("{}.{}.tmp", path.string(), ::getpid());
  {
    OutputFile file(temporary);
    file.write(bytes);
    file.sync();
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) fail_on("rename to", path);
  sync_directory(path.parent_path());
}

void sync_directory(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory.empty() ? "." : directory;
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail_on("open", path);
  const int result = ::fsync(descriptor);
  ::close(descriptor);
  if (result != 0) fail_on("flush", path);
}

InputFile::InputFile(const std::filesystem::path& path)
    : name_(path.string()), file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (!file_.is_open()) fail_on("open", path);
  struct stat status;
  if (::fstat(file_.descriptor(), &status) != 0) fail_on("read", path);
  if (!S_ISREG(status.st_mode)) fail("cannot read {}: it is not a file", name_);
  bytes_ = static_cast<std::uint64_t>(status.st_size);
}

void InputFile::read(std::uint64_t offset, std::span<std::byte> to) const {
  if (offset > bytes_ || to.size() > bytes_ - offset) {
    fail("{}: {} bytes from byte {} on were expected, it has {}", name_, to.size(), offset, bytes_);
  }
  if (!file_.is_open()) {
    std::memcpy(to.data(), contents_.data() + offset, to.size());
    return;
  }
  while (!to.empty()) {
    const ssize_t count =
        ::pread(file_.descriptor(), to.data(), to.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_on("read", name_);
    if (count == 0) fail("{} has become shorter while it was read", name_);
    to = to.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

OutputFile::OutputFile(std::filesystem::path path, Mode mode) : path_(std::move(path)) {
  int flags = O_WRONLY | O_CLOEXEC;
  if (mode != Mode::kExisting) flags |= O_CREAT | (mode == Mode::kAppend ? O_APPEND : O_TRUNC);
  descriptor_ = ::open(path_.c_str(), flags, 0644);
  if (descriptor_ < 0) fail_on(mode == Mode::kExisting ? "open" : "create", path_);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::write(std::string_view bytes) {
  const off_t before = ::lseek(descriptor_, 0, SEEK_END);
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int reason = errno;
      // What cannot be taken back (a pipe, say) stays torn.
      if (before >= 0 && ::ftruncate(descriptor_, before) == 0) {
        ::lseek(descriptor_, before, SEEK_SET);
      }
      errno = reason;
      fail_on("write", path_);
    }
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void OutputFile::write(std::span<const std::byte> bytes) {
  write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void OutputFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count =
        ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_on("write", path_);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

void OutputFile::resize(std::uint64_t bytes) {
  if (::ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0) fail_on("resize", path_);
}

void OutputFile::sync() {
  if (::fsync(descriptor_) != 0) fail_on("flush", path_);
}

}  // namespace concord

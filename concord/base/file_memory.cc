#include "concord/base/file_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "concord/base/error.h"

namespace concord {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& folder, std::size_t bytes,
                         const std::string& why) {
  fail("no file of {:.1f} MiB can be made in {}: {}", static_cast<double>(bytes) / (1 << 20),
       folder.string(), why);
}

// A file beyond the limit would be answered by a signal.
void check_file_limit(const std::filesystem::path& folder, std::size_t bytes) {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  if (bytes <= limit.rlim_cur) return;
  refuse(folder, bytes,
         fmt::format("files of this process may have {:.1f} MiB (ulimit -f)",
                     static_cast<double>(limit.rlim_cur) / (1 << 20)));
}

struct Pages {
  std::size_t offset, bytes;
};

Pages pages_of(std::size_t offset, std::size_t bytes) {
  static const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t first = offset / page * page;
  return {first, offset + bytes - first};
}

}  // namespace

FileMemory::FileMemory(const std::filesystem::path& folder, std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  struct statfs system {};
  if (::statfs(folder.c_str(), &system) != 0) refuse(folder, bytes, std::strerror(errno));
  if (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC) {
    refuse(folder, bytes, "what is there lies in memory itself (tmpfs)");
  }
  check_file_limit(folder, bytes);
  std::string name = (folder / ".concord_memory_XXXXXX").string();
  file_ = Descriptor(::mkostemp(name.data(), O_CLOEXEC));
  if (!file_.is_open()) refuse(folder, bytes, std::strerror(errno));
  ::unlink(name.c_str());
  const int error = ::posix_fallocate(file_.descriptor(), 0, static_cast<off_t>(bytes));
  if (error != 0) refuse(folder, bytes, std::strerror(error));
  void* const memory =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_.descriptor(), 0);
  if (memory == MAP_FAILED) refuse(folder, bytes, std::strerror(errno));
  data_ = static_cast<std::byte*>(memory);
}

FileMemory::~FileMemory() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

// All are advice: where the system takes none, pages come when they are touched, and go when it
// needs them.
void FileMemory::prefetch(std::size_t offset, std::size_t bytes) const {
  constexpr std::size_t kPiece = std::size_t{1} << 20;  // of one that is longer it reads no more
  const Pages pages = pages_of(offset, bytes);
  for (std::size_t done = 0; done < pages.bytes; done += kPiece) {
    ::madvise(data_ + pages.offset + done, std::min(kPiece, pages.bytes - done), MADV_WILLNEED);
  }
}

void FileMemory::discard(std::size_t offset, std::size_t bytes) const {
  const Pages pages = pages_of(offset, bytes);
  ::madvise(data_ + pages.offset, pages.bytes, MADV_DONTNEED);
}

void FileMemory::release(std::size_t offset, std::size_t bytes) const {
  discard(offset, bytes);
  const Pages pages = pages_of(offset, bytes);
  ::sync_file_range(file_.descriptor(), static_cast<off_t>(pages.offset),
                    static_cast<off_t>(pages.bytes), SYNC_FILE_RANGE_WRITE);
}

}  // namespace concord

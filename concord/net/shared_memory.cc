#include "concord/net/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <map>
#include <mutex>

#include "concord/base/error.h"

namespace concord::net {
namespace {

// Where this process has mapped memory of its own.
class OwnMemory {
 public:
  static OwnMemory& instance() {
    static OwnMemory instance;
    return instance;
  }
  void add(int descriptor, const std::shared_ptr<std::byte>& data) {
    const std::lock_guard lock(mutex_);
    data_[descriptor] = data;
  }
  // Null where there is none, or none any more.
  std::shared_ptr<std::byte> find(int descriptor) {
    const std::lock_guard lock(mutex_);
    const auto found = data_.find(descriptor);
    return found == data_.end() ? nullptr : found->second.lock();
  }

 private:
  std::mutex mutex_;
  std::map<int, std::weak_ptr<std::byte>> data_;
};

}  // namespace

SharedMemory::SharedMemory(std::size_t bytes)
    : descriptor_(memfd_create("concord", MFD_CLOEXEC)), bytes_(bytes) {
  if (!descriptor_.is_open()) fail("no shared memory: {}", std::strerror(errno));
  int error = 0;
  do {
    error = posix_fallocate(descriptor_.descriptor(), 0, static_cast<off_t>(bytes));
  } while (error == EINTR);
  if (error != 0) {
    fail("{} bytes of shared memory were refused: {}", bytes, std::strerror(error));
  }
  map();
  OwnMemory::instance().add(descriptor_.descriptor(), data_);
}

SharedMemory SharedMemory::open(std::string_view locator) {
  std::array<std::int64_t, 3> fields{};  // process, descriptor, bytes
  std::string_view rest = locator;
  for (std::int64_t& field : fields) {
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), field);
    if (error != std::errc() || field <= 0) fail("\"{}\" does not locate shared memory", locator);
    rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
    if (!rest.empty()) rest.remove_prefix(1);
  }
  SharedMemory memory;
  memory.bytes_ = static_cast<std::size_t>(fields[2]);
  if (fields[0] == getpid()) {
    memory.data_ = OwnMemory::instance().find(static_cast<int>(fields[1]));
    if (memory.data_) return memory;
  }
  const std::string path = fmt::format("/proc/{}/fd/{}", fields[0], fields[1]);
  memory.descriptor_ = Descriptor(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!memory.descriptor_.is_open()) {
    fail(
        "cannot share memory with process {}: {}; processes that do must run on one machine, as "
        "one user and in one container",
        fields[0], std::strerror(errno));
  }
  if (lseek(memory.descriptor_.descriptor(), 0, SEEK_END) != fields[2]) {
    fail("the memory of process {} is not the one that was announced", fields[0]);
  }
  memory.map();
  memory.descriptor_ = Descriptor();  // the mapping stays
  return memory;
}

void SharedMemory::map() {
  void* const memory =
      mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_.descriptor(), 0);
  if (memory == MAP_FAILED) {
    fail("{} bytes of shared memory cannot be mapped: {}", bytes_, std::strerror(errno));
  }
  data_.reset(static_cast<std::byte*>(memory),
              [bytes = bytes_](std::byte* data) { munmap(data, bytes); });
  madvise(memory, bytes_, MADV_HUGEPAGE);  // where the system allows them for shared memory
}

std::string SharedMemory::locator() const {
  return fmt::format("{}/{}/{}", getpid(), descriptor_.descriptor(), bytes_);
}

}  // namespace concord::net

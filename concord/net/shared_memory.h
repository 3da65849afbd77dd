// Memory that several processes of one machine see. It has no name in the file system: nothing of
// it is left behind however its users end, and the size of /dev/shm does not bound it.
//
// Thread safety: none added.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "concord/base/descriptor.h"

namespace concord::net {

class SharedMemory {
 public:
  // Zero-initialised. Throws Error where the system has not that much.
  explicit SharedMemory(std::size_t bytes);
  // Another's, by its locator. Its owner must be alive, on this machine, and of the same user.
  // Throws Error that says what is not so.
  static SharedMemory open(std::string_view locator);

  SharedMemory(SharedMemory&& other) noexcept { swap(other); }
  SharedMemory& operator=(SharedMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~SharedMemory();

  // What another process needs to open it; of memory that was not opened from another.
  std::string locator() const;
  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  SharedMemory() = default;
  void map();
  void swap(SharedMemory& other) noexcept;

  Descriptor descriptor_;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace concord::net

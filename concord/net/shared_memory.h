// Memory that several processes of one machine see. It has no name in the file system: nothing of
// it is left behind however its users end, and the size of /dev/shm does not bound it.
//
// Thread safety: none added.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "concord/base/descriptor.h"

namespace concord::net {

class SharedMemory {
 public:
  // Zero-initialised. Throws Error where the system has not that much.
  explicit SharedMemory(std::size_t bytes);
  // Another's, by its locator. Its owner must be alive, on this machine, and of the same user.
  // Throws Error that says what is not so. In its owner's own process, where ranks may be threads,
  // it lies at the same address: ThreadSanitizer knows memory by that.
  static SharedMemory open(std::string_view locator);

  // What another process needs to open it; of memory that was not opened from another.
  std::string locator() const;
  std::byte* data() const { return data_.get(); }
  std::size_t bytes() const { return bytes_; }

 private:
  SharedMemory() = default;
  void map();

  Descriptor descriptor_;
  std::shared_ptr<std::byte> data_;
  std::size_t bytes_ = 0;
};

}  // namespace concord::net

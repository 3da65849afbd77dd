// FileMemory: zero-initialised memory that lies in a file of no name, so that the system can take
// its pages away and bring them back: only what is in use needs to be resident.
//
// Room for all of it is taken on the disk at once: a disk that is full later cannot end the
// process. The file is gone when the memory is, however the process ends.
// Thread safety: data() as other memory; the rest is for one thread. Movable.
#pragma once

#include <cstddef>
#include <filesystem>
#include <utility>

#include "concord/base/descriptor.h"

namespace concord {

class FileMemory {
 public:
  FileMemory() = default;
  // In a file system's memory nothing would be won. Throws Error where `folder` lies in one, does
  // not exist, cannot be written to, or where there is no room for `bytes`.
  FileMemory(const std::filesystem::path& folder, std::size_t bytes);
  ~FileMemory();
  FileMemory(FileMemory&& other) noexcept
      : file_(std::move(other.file_)),
        data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  FileMemory& operator=(FileMemory&& other) noexcept {
    std::swap(file_, other.file_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

  // Of bytes [offset, offset + bytes), in whole pages. They will be needed soon: reading them from
  // the disk begins.
  void prefetch(std::size_t offset, std::size_t bytes) const;
  // They are not needed for now: they are resident no more, and writing them to the disk begins.
  void release(std::size_t offset, std::size_t bytes) const;
  // They will be written before they are read again: they are resident no more.
  void discard(std::size_t offset, std::size_t bytes) const;

 private:
  Descriptor file_;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace concord

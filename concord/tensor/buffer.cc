#include "concord/tensor/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace concord {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLarge = std::size_t{1} << 20;  // from here on a buffer has its own mapping

std::size_t round_up(std::size_t bytes, std::size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

// Large buffers ask for huge pages: the processor's table of recent pages then covers far more of
// what a step walks through. Where the system grants none, they are as others. What does not fill a
// huge page at their end takes small ones, so that no more memory is taken than was asked for.
std::byte* map(std::size_t bytes) {
  const std::size_t reserved = bytes + kHugePage;  // that an aligned piece is in it
  void* const memory =
      mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(memory);
  const std::size_t before = -reinterpret_cast<std::uintptr_t>(begin) % kHugePage;
  if (before > 0) munmap(begin, before);
  munmap(begin + before + bytes, kHugePage - before);
  madvise(begin + before, bytes, MADV_HUGEPAGE);
  return begin + before;
}

}  // namespace

Buffer::Buffer(std::size_t bytes) : bytes_(bytes) {
  const bool is_large = bytes >= kLarge;
  const std::size_t rounded = std::max(kAlignment, round_up(bytes, is_large ? kPage : kAlignment));
  auto* const memory =
      is_large ? map(rounded) : static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded));
  if (memory == nullptr) fail("not enough memory: an allocation of {} bytes was refused", bytes);
  data_ = {memory, Free{.mapped = is_large ? rounded : 0}};
  std::memset(memory, 0, rounded);
}

void Buffer::Free::operator()(std::byte* data) const {
  if (mapped > 0) {
    munmap(data, mapped);
  } else {
    std::free(data);
  }
}

std::string to_string(const TensorType& type) {
  return fmt::format("{}{}", to_string(type.dtype), to_string(type.shape));
}

}  // namespace concord

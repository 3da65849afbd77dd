#include "concord/tensor/buffer.h"

#include <cstdlib>
#include <cstring>

namespace concord {
namespace {
constexpr std::size_t kAlignment = 64;
}

Buffer::Buffer(std::size_t bytes) : bytes_(bytes) {
  const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* memory = std::aligned_alloc(kAlignment, rounded == 0 ? kAlignment : rounded);
  if (memory == nullptr) fail("not enough memory: an allocation of {} bytes was refused", bytes);
  std::memset(memory, 0, rounded);
  data_.reset(static_cast<std::byte*>(memory));
}

void Buffer::Free::operator()(std::byte* data) const { std::free(data); }

std::string to_string(const TensorType& type) {
  return fmt::format("{}{}", to_string(type.dtype), to_string(type.shape));
}

}  // namespace concord

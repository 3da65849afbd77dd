#include "concord/net/store_request.h"

#include <cstdint>
#include <cstring>

namespace concord::net {
namespace {

constexpr std::size_t kHeader = 1 + sizeof(std::uint32_t);

}  // namespace

std::optional<StoreRequest> StoreRequest::of(std::string_view bytes) {
  if (bytes.size() < kHeader) return std::nullopt;
  std::uint32_t key_size = 0;
  std::memcpy(&key_size, bytes.data() + 1, sizeof key_size);
  if (key_size > kLongestKey || key_size > bytes.size() - kHeader) return std::nullopt;
  const StoreRequest request{bytes[0], bytes.substr(kHeader, key_size),
                             bytes.substr(kHeader + key_size)};
  const std::size_t expected = request.what == 'a' ? sizeof(std::int64_t) : 0;
  const bool fits = request.what == 's' || request.value.size() == expected;
  const bool known = std::string_view("sga").find(request.what) != std::string_view::npos;
  return known && fits ? std::optional(request) : std::nullopt;
}

std::string StoreRequest::bytes() const {
  const auto key_size = static_cast<std::uint32_t>(key.size());
  std::string bytes(1, what);
  bytes.append(reinterpret_cast<const char*>(&key_size), sizeof key_size);
  return bytes.append(key).append(value);
}

}  // namespace concord::net

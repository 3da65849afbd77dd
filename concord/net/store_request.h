// What a client of the rendezvous store asks for, as bytes: 's'et, 'g'et or 'a'dd, the size of the
// key (4 bytes), the key, the value (of 'a' 8 bytes). Numbers are in the order of x86 and ARM.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace concord::net {

struct StoreRequest {
  static constexpr std::size_t kLongestKey = 1 << 10;    // bytes
  static constexpr std::size_t kLongestValue = 1 << 24;  // bytes

  char what;
  std::string_view key, value;

  // nullopt: no request that a client sends. Views are of `bytes`.
  static std::optional<StoreRequest> of(std::string_view bytes);
  std::string bytes() const;
};

}  // namespace concord::net

// The secret that the ranks of one job share, and how two of them prove to each other that they
// know it without sending it: each signs the other's fresh random number, and its own role, with
// HMAC-SHA256 (RFC 2104). What was overheard on one connection proves nothing on the next.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace concord::net {

class Secret {
 public:
  // From the system's random numbers.
  static Secret random();
  // 64 hexadecimal digits. Throws Error for other text, without repeating it.
  static Secret from_hex(std::string_view text);
  std::string to_hex() const;

 private:
  friend struct Challenge;
  std::array<std::byte, 32> key_{};
};

// Of one connection: the random numbers of both ends.
struct Challenge {
  using Nonce = std::array<std::byte, 32>;
  using Proof = std::array<std::byte, 32>;
  enum class Role : unsigned char { kServer = 1, kClient = 2 };

  static Nonce random_nonce();

  Proof proof(const Secret& secret, Role role) const;
  // Takes equally long wherever a wrong proof differs.
  bool proves(const Secret& secret, Role role, std::span<const std::byte, 32> proof) const;

  Nonce server{}, client{};
};

}  // namespace concord::net

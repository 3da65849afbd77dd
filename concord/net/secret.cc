#include "concord/net/secret.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <vector>

#include "concord/base/error.h"

namespace concord::net {
namespace {

std::array<std::byte, 32> random_bytes() {
  std::array<std::byte, 32> bytes;
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    fail("the system gives no random numbers: {}", std::generic_category().message(errno));
  }
  return bytes;
}

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

Secret Secret::random() {
  Secret secret;
  secret.key_ = random_bytes();
  return secret;
}

Secret Secret::from_hex(std::string_view text) {
  Secret secret;
  const bool is_hex = std::ranges::all_of(text, [](char c) { return digit_of(c) >= 0; });
  if (text.size() != 2 * secret.key_.size() || !is_hex) {
    fail("the job's secret is {} characters; expected {} digits 0-9, a-f", text.size(),
         2 * secret.key_.size());
  }
  for (std::size_t i = 0; i < secret.key_.size(); ++i) {
    secret.key_[i] = static_cast<std::byte>(16 * digit_of(text[2 * i]) + digit_of(text[2 * i + 1]));
  }
  return secret;
}

std::string Secret::to_hex() const {
  std::string text;
  for (const std::byte byte : key_) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

Challenge::Nonce Challenge::random_nonce() { return random_bytes(); }

Challenge::Proof Challenge::proof(const Secret& secret, Role role) const {
  std::vector<std::byte> text = {static_cast<std::byte>(role)};
  text.insert(text.end(), server.begin(), server.end());
  text.insert(text.end(), client.begin(), client.end());
  Proof proof;
  unsigned size = 0;
  const auto* result = HMAC(EVP_sha256(), secret.key_.data(), static_cast<int>(secret.key_.size()),
                            reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                            reinterpret_cast<unsigned char*>(proof.data()), &size);
  CONCORD_CHECK(result != nullptr && size == proof.size());
  return proof;
}

bool Challenge::proves(const Secret& secret, Role role,
                       std::span<const std::byte, 32> given) const {
  const Proof expected = proof(secret, role);
  return CRYPTO_memcmp(expected.data(), given.data(), expected.size()) == 0;
}

}  // namespace concord::net

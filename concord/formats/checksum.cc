#include "concord/formats/checksum.h"

#include <fmt/core.h>
#include <xxhash.h>

#include <array>
#include <fstream>
#include <vector>

#include "concord/base/error.h"

namespace concord::formats {
namespace {

std::string to_hex(XXH128_hash_t hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

// The remainder of each byte value, for the bit-reversed Castagnoli polynomial.
constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t value = 0; value < 256; ++value) {
    std::uint32_t remainder = value;
    for (int bit = 0; bit < 8; ++bit) {
      remainder = (remainder >> 1) ^ ((remainder & 1) != 0 ? 0x82f63b78u : 0u);
    }
    table[value] = remainder;
  }
  return table;
}

constexpr std::array<std::uint32_t, 256> kCrcTable = make_crc_table();

}  // namespace

void Checksum::Free::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

Checksum::Checksum() : state_(XXH3_createState()) {
  CONCORD_CHECK(state_ != nullptr && XXH3_128bits_reset(state_.get()) == XXH_OK);
}

void Checksum::update(std::string_view bytes) {
  CONCORD_CHECK(XXH3_128bits_update(state_.get(), bytes.data(), bytes.size()) == XXH_OK);
}

void Checksum::update(std::span<const std::byte> bytes) {
  update(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

std::string Checksum::hex() const { return to_hex(XXH3_128bits_digest(state_.get())); }

std::string checksum(std::string_view bytes) {
  return to_hex(XXH3_128bits(bytes.data(), bytes.size()));
}

FileDigest digest_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  Checksum sum;
  FileDigest digest;
  for (std::vector<char> block(1 << 20); file;) {
    file.read(block.data(), static_cast<std::streamsize>(block.size()));
    const auto count = static_cast<std::size_t>(file.gcount());
    sum.update(std::string_view(block.data(), count));
    digest.bytes += count;
  }
  if (!file.eof()) fail("cannot read {}", path.string());
  digest.xxh3_128 = sum.hex();
  return digest;
}

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t remainder = ~0u;
  for (const char byte : bytes) {
    remainder = (remainder >> 8) ^ kCrcTable[(remainder ^ static_cast<std::uint8_t>(byte)) & 0xff];
  }
  return ~remainder;
}

}  // namespace concord::formats

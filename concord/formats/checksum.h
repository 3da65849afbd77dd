// Checksums of bytes: XXH3-128 for whatever Concord writes and reads back, CRC-32C because
// TensorBoard's framing asks for it. Sources: xxHash specification,
// https://github.com/Cyan4973/xxHash; CRC-32C, RFC 3720, section 12.1. Thread safety: a Checksum
// belongs to one thread; the functions share no state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

struct XXH3_state_s;

namespace concord::formats {

// XXH3-128 (seed 0) of bytes that arrive piece by piece.
class Checksum {
 public:
  Checksum();
  void update(std::string_view bytes);
  void update(std::span<const std::byte> bytes);
  // Of all bytes so far: 32 lower-case hexadecimal digits, as `xxh128sum` prints them.
  std::string hex() const;

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

// The XXH3-128 of `bytes` at once.
std::string checksum(std::string_view bytes);

// What a file held when it was written, to be compared when it is read.
struct FileDigest {
  std::uint64_t bytes = 0;
  std::string xxh3_128;

  friend bool operator==(const FileDigest&, const FileDigest&) = default;
};

// Of a file as it can be read now. Throws Error when it cannot.
FileDigest digest_of(const std::filesystem::path& path);

// CRC-32C (Castagnoli).
std::uint32_t crc32c(std::string_view bytes);

}  // namespace concord::formats

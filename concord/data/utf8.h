// UTF-8 (RFC 3629): validation, and text as code points.
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace concord::data {

// How many bytes at the start of `text` are whole, valid characters: text.size() where all are.
std::size_t valid_utf8_prefix(std::string_view text);

// Throws Error naming `source`, the byte and its line where `text` is not UTF-8.
void check_utf8(std::string_view text, std::string_view source);

// The bytes of the first character of `text`, which is UTF-8 and not empty.
std::size_t first_character_size(std::string_view text);

// Whether this byte of UTF-8 belongs to the character before it.
constexpr bool continues_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xc0) == 0x80;
}

// The first character of `text`, which is UTF-8 and not empty.
char32_t first_character(std::string_view text);

void append_utf8(std::string& text, char32_t character);

// UTF-8 that comes in parts which need not be whole characters. A byte that belongs to no character
// becomes U+FFFD.
class CharacterStream {
 public:
  // The characters that are whole with these bytes.
  std::string add(std::string_view bytes);
  // What is left, after the last part.
  std::string finish();

 private:
  std::string begun_;  // the bytes of a character that is not yet whole
};

}  // namespace concord::data

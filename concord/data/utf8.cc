#include "concord/data/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "concord/base/error.h"

namespace concord::data {
namespace {

// The bytes of the character that `lead` begins, by its leading ones; 0 where it begins none.
std::size_t size_by_lead(std::uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xc2) return 0;
  if (lead < 0xe0) return 2;
  if (lead < 0xf0) return 3;
  return lead < 0xf5 ? 4 : 0;
}

// The bytes of the valid character that `text` begins with, or 0.
std::size_t valid_character_size(std::string_view text) {
  const std::size_t size = size_by_lead(static_cast<std::uint8_t>(text.front()));
  if (size == 0 || size > text.size()) return 0;
  for (std::size_t i = 1; i < size; ++i) {
    if (!continues_character(text[i])) return 0;
  }
  const char32_t character = first_character(text);
  const bool overlong = (size == 3 && character < 0x800) || (size == 4 && character < 0x10000);
  const bool surrogate = character >= 0xd800 && character < 0xe000;
  return overlong || surrogate || character > 0x10ffff ? 0 : size;
}

// Whether further bytes may make a character of `text`.
bool may_become_character(std::string_view text) {
  return text.size() < size_by_lead(static_cast<std::uint8_t>(text.front())) &&
         std::ranges::all_of(text.substr(1), continues_character);
}

constexpr char32_t kReplacement = 0xfffd;

bool starts_with_8_ascii(std::string_view text) {
  std::uint64_t word = 0;
  if (text.size() < sizeof(word)) return false;
  std::memcpy(&word, text.data(), sizeof(word));
  return (word & 0x8080808080808080) == 0;
}

}  // namespace

std::size_t valid_utf8_prefix(std::string_view text) {
  std::size_t valid = 0;
  while (valid < text.size()) {
    const std::string_view rest = text.substr(valid);
    const std::size_t size = starts_with_8_ascii(rest) ? 8 : valid_character_size(rest);
    if (size == 0) break;
    valid += size;
  }
  return valid;
}

void check_utf8(std::string_view text, std::string_view source) {
  const std::size_t valid = valid_utf8_prefix(text);
  if (valid == text.size()) return;
  fail("{}: not UTF-8: byte 0x{:02x} at offset {}, line {}: convert the text (iconv -t UTF-8)",
       source, static_cast<std::uint8_t>(text[valid]), valid,
       1 + std::ranges::count(text.substr(0, valid), '\n'));
}

std::size_t first_character_size(std::string_view text) {
  return size_by_lead(static_cast<std::uint8_t>(text.front()));
}

char32_t first_character(std::string_view text) {
  const std::size_t size = first_character_size(text);
  const auto lead = static_cast<std::uint8_t>(text.front());
  char32_t character = size == 1 ? lead : lead & (0x7f >> size);
  for (std::size_t i = 1; i < size; ++i) {
    character = character << 6 | (static_cast<std::uint8_t>(text[i]) & 0x3f);
  }
  return character;
}

void append_utf8(std::string& text, char32_t character) {
  if (character < 0x80) {
    text += static_cast<char>(character);
    return;
  }
  const int tail = character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;  // bytes after the lead
  const char32_t marks[] = {0xc0, 0xe0, 0xf0};
  text += static_cast<char>(marks[tail - 1] | character >> (6 * tail));
  for (int i = tail - 1; i >= 0; --i) {
    text += static_cast<char>(0x80 | (character >> (6 * i) & 0x3f));
  }
}

std::string CharacterStream::add(std::string_view bytes) {
  begun_ += bytes;
  std::string whole;
  std::string_view rest = begun_;
  while (!rest.empty()) {
    const std::size_t valid = valid_utf8_prefix(rest);
    whole += rest.substr(0, valid);
    rest.remove_prefix(valid);
    if (rest.empty() || may_become_character(rest)) break;
    append_utf8(whole, kReplacement);
    rest.remove_prefix(1);
  }
  begun_ = rest;
  return whole;
}

std::string CharacterStream::finish() {
  std::string replaced;
  for (; !begun_.empty(); begun_.pop_back()) append_utf8(replaced, kReplacement);
  return replaced;
}

}  // namespace concord::data

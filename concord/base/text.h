// Small helpers for words in messages: the nearest known name to a misspelt one, and quoting.
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace concord {

// The fewest insertions, deletions, replacements of one byte and swaps of two neighbouring bytes
// that turn `a` into `b`, no part being edited twice ("optimal string alignment", the restricted
// form of Damerau, "A technique for computer detection and correction of spelling errors", 1964).
// Takes time |a| x |b|.
std::size_t edit_distance(std::string_view a, std::string_view b);

// The candidate with the smallest edit distance to `word`, the first of equals; empty when there
// are no candidates. Only the first 64 bytes of `word` are compared, so that a hostile one costs
// little.
std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates);

// `text` between double quotes, with quotes, backslashes and control characters escaped: one line,
// and a TOML and JSON string that reads back as `text` (when `text` is UTF-8).
std::string quote(std::string_view text);

// At most `bytes` of `text`, cut at a whole UTF-8 character and marked with "..." where it was
// longer: what a user wrote, for a message.
std::string shortened(std::string_view text, std::size_t bytes = 80);

// Whether `text` fits the pattern, where "*" stands for any characters. Takes time |text| x
// |pattern|.
bool fits_pattern(std::string_view text, std::string_view pattern);

}  // namespace concord

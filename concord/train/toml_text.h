// TOML that is not trusted.
#pragma once

#include <string_view>

// toml++ 3.3 asserts that a table's name starts as one, and then reports the error itself: an
// assertion would turn "[%]" in a file into an abort.
#define TOML_ASSERT(condition) static_assert(true)
#include <toml++/toml.h>

namespace concord {

constexpr bool is_control(unsigned char c) { return c < 0x20 || c == 0x7f; }

// Without spaces at its ends.
std::string_view trimmed(std::string_view text);

// Throws Error with place and reason where the text is not TOML; `where`: its file's name.
toml::table parse_toml(std::string_view text, std::string_view where);

}  // namespace concord

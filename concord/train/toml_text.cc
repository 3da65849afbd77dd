#include "concord/train/toml_text.h"

#include <algorithm>
#include <cctype>
#include <sstream>
#include <string>

#include "concord/base/error.h"
#include "concord/base/text.h"

namespace concord {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const std::size_t begin = std::min(text.find_first_not_of(kSpace), text.size());
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

namespace {

std::string line_of(std::string_view text, std::size_t number) {
  std::istringstream lines{std::string(text)};
  std::string line;
  for (std::size_t i = 0; i < number; ++i) std::getline(lines, line);
  return line;
}

// The value in a line, where it is one word that lacks quotes; else empty.
std::string_view unquoted_word(std::string_view line) {
  const std::size_t equals = line.find('=');
  if (equals == std::string_view::npos) return {};
  const std::string_view word =
      trimmed(line.substr(equals + 1, line.find('#', equals) - equals - 1));
  const auto begins_word = [](unsigned char c) { return std::isalpha(c) != 0 || c == '/'; };
  const auto is_in_word = [&](unsigned char c) {
    return begins_word(c) || std::isdigit(c) != 0 || c == '_' || c == '-' || c == '.';
  };
  constexpr std::string_view kValues[] = {"true", "false", "inf", "nan"};
  const bool is_word = !word.empty() && begins_word(word[0]) &&
                       std::ranges::all_of(word, is_in_word) &&
                       std::ranges::count(kValues, word) == 0;
  return is_word ? word : std::string_view();
}

}  // namespace

toml::table parse_toml(std::string_view text, std::string_view where) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    const auto at = error.source().begin;
    const std::string line = line_of(text, at.line);
    if (const std::string_view word = unquoted_word(line); !word.empty()) {
      fail("{}:{}:{}: not valid TOML: a string stands in quotes: {}", where, at.line, at.column,
           shortened(quote(word)));
    }
    if (error.description().find("redefine") != std::string_view::npos) {
      const std::string_view name = trimmed(std::string_view(line).substr(0, line.find('=')));
      fail("{}:{}: not valid TOML: {} is there a second time", where, at.line, shortened(name));
    }
    // The description may quote what it met, line ends included.
    std::string reason(error.description());
    std::ranges::replace_if(reason, is_control, ' ');
    fail("{}:{}:{}: not valid TOML: {}", where, at.line, at.column, shortened(reason, 300));
  }
}

}  // namespace concord

#include "concord/base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

namespace concord {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Row i holds the distances from the first i bytes of `a` to every beginning of `b`.
  std::vector<std::size_t> before_last(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::swap(before_last, last);
    std::swap(last, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
  }
  return row[b.size()];
}

std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates) {
  constexpr std::size_t kCompared = 64;
  const auto best = std::ranges::min_element(candidates, {}, [&](std::string_view candidate) {
    return edit_distance(word.substr(0, kCompared), candidate);
  });
  return best == candidates.end() ? std::string_view() : *best;
}

std::string quote(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '\t') {
      result += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      fmt::format_to(std::back_inserter(result), "\\u{:04x}", byte);
    } else {
      result += c;
    }
  }
  return result + '"';
}

std::string shortened(std::string_view text, std::size_t bytes) {
  if (text.size() <= bytes) return std::string(text);
  std::size_t end = bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "...";
}

// Only the last star seen may have to stand for more: the ones before have found the earliest place
// for what follows them.
bool fits_pattern(std::string_view text, std::string_view pattern) {
  std::size_t n = 0, p = 0, behind_star = pattern.npos, starred = 0;
  while (n < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      behind_star = ++p;
      starred = n;
    } else if (p < pattern.size() && pattern[p] == text[n]) {
      ++p;
      ++n;
    } else if (behind_star != pattern.npos) {
      p = behind_star;
      n = ++starred;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == pattern.npos;
}

}  // namespace concord

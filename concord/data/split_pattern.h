// A regular expression that cuts text into words before they are encoded ("pre-tokenization").
// Patterns come from files that are not trusted: their size and the work of a match are bounded.
//
// PCRE2 runs them with Unicode classes. Hugging Face's package uses Oniguruma; for the patterns of
// GPT-2, Llama 3 and their kin both find the same words, except that PCRE2 counts U+180E, which
// Unicode removed from the spaces in version 6.3, as one.
// Thread safety: const methods may be called by several threads.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace concord::data {

// The words of GPT-2 (Radford et al., 2019): contractions, and letters, digits or other characters
// with a space before them.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class SplitPattern {
 public:
  // Throws Error beginning with `source` when the pattern is malformed or too large.
  SplitPattern(std::string pattern, std::string source);

  const std::string& pattern() const { return pattern_; }

  // Calls word() for each match and for each piece between matches, in order: together they are
  // `text`, which must be UTF-8. Throws Error where a match takes too much work.
  void split(std::string_view text, const std::function<void(std::string_view)>& word) const;

 private:
  std::string pattern_;
  std::string source_;
  std::shared_ptr<const void> code_;  // pcre2_code
};

}  // namespace concord::data

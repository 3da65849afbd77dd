// Text files, their parts for training and validation, and a text as one long row of tokens.
// Errors: Error naming the file when it cannot be read, is empty or is not UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "concord/data/tokenizer.h"

namespace concord::data {

// The text of a file, plain or compressed by gzip, in UTF-8; a byte order mark is left out.
std::string read_text(const std::filesystem::path& path);

// Tokens in a row, in two bytes each where the vocabulary has at most 65536 of them, in four
// otherwise. Thread safety: const methods may be called by several threads.
class TokenStream {
 public:
  explicit TokenStream(int vocabulary_size) : narrow_(vocabulary_size <= 1 << 16) {}

  std::size_t size() const { return narrow_ ? two_bytes_.size() : four_bytes_.size(); }
  std::size_t bytes() const { return size() * (narrow_ ? 2 : 4); }

  // The ids must be below the vocabulary's size.
  void append(std::span<const TokenId> ids);
  // Copies the tokens from number `first` on to `ids`, as many as there is room for; they must
  // exist.
  void read(std::size_t first, std::span<TokenId> ids) const;

 private:
  bool narrow_;
  std::vector<std::uint16_t> two_bytes_;
  std::vector<TokenId> four_bytes_;
};

// The tokens of a text.
TokenStream to_tokens(const Tokenizer& tokenizer, std::string_view text);

struct TextParts {
  std::string_view training;
  std::string_view validation;
};

// The last `fraction` of the text's bytes, rounded down to whole characters, becomes the validation
// part. The text must be UTF-8. Throws Error naming `source` unless both parts hold text.
TextParts split_text(std::string_view text, double fraction, std::string_view source);

}  // namespace concord::data

// Tokenizer: text to token ids and back, by byte-pair encoding (Sennrich et al., "Neural Machine
// Translation of Rare Words with Subword Units", 2016).
//
// Text is cut into words, a word into symbols, and the neighbouring symbols whose merge has the
// lowest rank are joined until no merge applies. Symbols at the start are bytes (GPT-2's form,
// Radford et al., 2019; Llama 3) or characters (Llama 2), where a character without a token may
// stand as the tokens of its bytes ("byte fallback").
//
// Tokenizers are read from and written as Hugging Face's tokenizer.json. Ids are those of
// `encode(text, add_special_tokens=False)` there. Read: models of type BPE; the normalizers Prepend
// and Replace of a space; the pre-tokenizers Split by a regular expression, ByteLevel and
// Metaspace. Whatever else would change ids is refused by name. Truncation, padding, the
// post-processor and the decoder are not read: decoding is the inverse of encoding.
//
// Ownership: a copy shares its tables with the original. Thread safety: const methods may be called
// by several threads. Errors: Error naming the source for malformed or unsupported files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "concord/data/merges.h"

namespace concord::data {

// What a tokenizer.json says. Strings are UTF-8. Tokens of a byte-level tokenizer are spelt there
// with one printable character for each byte (byte_level_spelling).
struct TokenizerParts {
  struct AddedToken {  // found in the text before anything else, wherever it stands
    std::string content;
    bool special = false;
    bool normalized = false;  // found after normalization instead
  };
  enum class Prefix { kNever, kFirst, kAlways };

  std::vector<std::string> tokens;  // by id, added ones included
  std::vector<AddedToken> added;
  std::vector<std::pair<TokenId, TokenId>> merges;  // by rank

  // Normalization, of each piece of text between added tokens.
  std::string normalized_prefix;  // set before it
  std::string normalized_space;   // in place of each space; empty: a space stays

  // Cutting into words.
  bool byte_level = false;
  std::vector<std::string> patterns;  // one after another
  std::string metaspace;              // in place of each space; empty: no Metaspace
  bool metaspace_split = false;       // a word begins at each metaspace
  // Byte level and Metaspace: a space before a piece that begins without one, always or only at the
  // start of the text.
  Prefix prefix = Prefix::kNever;

  // The model.
  std::string unknown;         // the token of what has no other; empty: that is an error
  bool fuse_unknown = false;   // one for a run of them
  bool byte_fallback = false;  // bytes as tokens <0x00> to <0xFF>
  bool ignore_merges = false;  // a word that is a token needs no merges
};

class Tokenizer {
 public:
  // Throws Error beginning with `source` when the parts contradict each other.
  explicit Tokenizer(TokenizerParts parts, std::string_view source = "tokenizer");

  // A token for each byte, the id being its value.
  static Tokenizer bytes();
  // `source` names the JSON in errors.
  static Tokenizer from_json(const nlohmann::json& json, std::string_view source);
  // From the bytes of a tokenizer.json, which are not trusted.
  static Tokenizer parse(std::string_view text, std::string_view source);

  nlohmann::json to_json() const;

  // Added tokens are found in the text, special ones too. Throws Error when the text is not UTF-8
  // (bytes() takes any), or holds a character that has no token.
  // `starts_text`: false for the rest of a text whose beginning was encoded before.
  std::vector<TokenId> encode(std::string_view utf8, bool starts_text = true) const;

  // The text of the tokens, added ones included. The bytes of a character may be spread over
  // several tokens, so a part of a text need not decode to UTF-8. Llama 2's way of encoding sets a
  // space before the text, which decoding takes off again: decode a prompt and its continuation
  // together. Throws Error for an id that is no token's.
  std::string decode(std::span<const TokenId> ids) const;

  int vocabulary_size() const;

  // The id of a token as the vocabulary spells it, for example "<|endoftext|>".
  std::optional<TokenId> find(std::string_view token) const;

  const TokenizerParts& parts() const;

 private:
  class Tables;
  class Encoder;
  std::shared_ptr<const Tables> tables_;
};

// "bytes", or the path of a tokenizer.json.
Tokenizer open_tokenizer(const std::string& name_or_path);

// How byte-level tokenizers spell bytes in a vocabulary: printable characters of Latin-1 as
// themselves, the others as the characters from U+0100 on, in order (Radford et al., 2019).
std::string byte_level_spelling(std::string_view bytes);

}  // namespace concord::data

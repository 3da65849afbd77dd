#include "concord/data/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>
#include <limits>
#include <numeric>
#include <unordered_map>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/text.h"
#include "concord/data/merges.h"
#include "concord/data/split_pattern.h"
#include "concord/data/token_finder.h"
#include "concord/data/utf8.h"

namespace concord::data {
namespace {

constexpr TokenId kNoToken = -1;

// The character that spells each byte.
constexpr std::array<char32_t, 256> byte_characters() {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    characters[byte] = printable ? byte : next++;
  }
  return characters;
}
constexpr std::array<char32_t, 256> kByteCharacters = byte_characters();

// The bytes that a byte-level token spells; as Hugging Face's package has it, a token with any
// other character is the text itself.
std::string byte_level_text(const std::string& token) {
  static const std::unordered_map<char32_t, char> bytes = [] {
    std::unordered_map<char32_t, char> result;
    for (int byte = 0; byte < 256; ++byte) {
      result[kByteCharacters[static_cast<std::size_t>(byte)]] = static_cast<char>(byte);
    }
    return result;
  }();
  std::string text;
  for (std::string_view rest = token; !rest.empty();
       rest.remove_prefix(first_character_size(rest))) {
    const auto found = bytes.find(first_character(rest));
    if (found == bytes.end()) return token;
    text += found->second;
  }
  return text;
}

std::string byte_fallback_token(char byte) {
  return fmt::format("<0x{:02X}>", static_cast<std::uint8_t>(byte));
}

std::string replaced(std::string_view text, std::string_view what, std::string_view by) {
  std::string result;
  std::size_t done = 0;
  for (std::size_t place = text.find(what); place != text.npos; place = text.find(what, done)) {
    result.append(text.substr(done, place - done)).append(by);
    done = place + what.size();
  }
  return result.append(text.substr(done));
}

}  // namespace

std::string byte_level_spelling(std::string_view bytes) {
  std::string spelling;
  for (const char byte : bytes) {
    append_utf8(spelling, kByteCharacters[static_cast<std::uint8_t>(byte)]);
  }
  return spelling;
}

// What encoding and decoding look up.
class Tokenizer::Tables {
 public:
  Tables(TokenizerParts given, std::string_view name) : parts(std::move(given)), source(name) {
    check_spaces();
    index_tokens();
    index_merges();
    index_added();
    for (const std::string& pattern : parts.patterns) patterns.emplace_back(pattern, source);
    spaces_begin_words = merges_keep_spaces_in_front();
  }
  Tables(const Tables&) = delete;
  Tables& operator=(const Tables&) = delete;

  TokenId find(std::string_view token) const {
    const auto found = ids.find(token);
    return found == ids.end() ? kNoToken : found->second;
  }

  // What stands for a space, "" where nothing does.
  const std::string& space_mark() const {
    return parts.metaspace.empty() ? parts.normalized_space : parts.metaspace;
  }

  bool needs_utf8() const { return !parts.byte_level || !parts.patterns.empty(); }

  std::string normalized(std::string_view text) const {
    if (parts.normalized_space.empty()) return parts.normalized_prefix + std::string(text);
    return parts.normalized_prefix + replaced(text, " ", parts.normalized_space);
  }

  TokenizerParts parts;
  std::string source;
  std::unordered_map<std::string_view, TokenId> ids;  // of parts.tokens
  std::vector<std::string> texts;                     // by id
  std::array<TokenId, 256> byte_tokens{};             // for byte level and byte fallback
  TokenId unknown = kNoToken;
  Merges merges;
  TokenFinder added;
  TokenFinder added_normalized;
  std::vector<SplitPattern> patterns;
  bool spaces_begin_words = false;  // a run of marked spaces begins a word: no merge crosses

 private:
  void check_spaces() const {
    if (!parts.normalized_prefix.empty() && parts.normalized_prefix != parts.normalized_space) {
      fail("{}: the normalizer sets {} before the text and {} for a space: expected the same twice",
           source, quote(parts.normalized_prefix), quote(parts.normalized_space));
    }
    if (!parts.metaspace.empty() && (parts.byte_level || !parts.normalized_space.empty())) {
      fail("{}: Metaspace with a ByteLevel pre-tokenizer or a normalizer: expected one of them",
           source);
    }
    if (parts.byte_level && parts.byte_fallback) {
      fail("{}: byte_fallback with a ByteLevel pre-tokenizer: expected one of them", source);
    }
  }

  void index_tokens() {
    for (const std::string& token : parts.tokens) {
      check_utf8(token, source);
      if (!ids.emplace(token, static_cast<TokenId>(ids.size())).second) {
        fail("{}: the token {} appears twice", source, quote(shortened(token)));
      }
      texts.push_back(text_of(token));
    }
    for (std::size_t byte = 0; byte < byte_tokens.size(); ++byte) {
      const char character = static_cast<char>(byte);
      byte_tokens[byte] = find(parts.byte_level ? byte_level_spelling({&character, 1})
                                                : byte_fallback_token(character));
      if (parts.byte_fallback && byte_tokens[byte] != kNoToken) {
        texts[static_cast<std::size_t>(byte_tokens[byte])] = character;
      }
    }
    if (!parts.unknown.empty()) unknown = expect_token(parts.unknown, "the unknown token");
  }

  std::string text_of(const std::string& token) const {
    if (parts.byte_level) return byte_level_text(token);
    return space_mark().empty() ? token : replaced(token, space_mark(), " ");
  }

  TokenId expect_token(std::string_view token, std::string_view role) const {
    const TokenId id = find(token);
    if (id == kNoToken) {
      fail("{}: {} is {}: expected a token of the vocabulary", source, role,
           quote(shortened(token)));
    }
    return id;
  }

  void index_merges() {
    std::int32_t rank = 0;
    for (const auto& [left, right] : parts.merges) {
      const auto count = static_cast<TokenId>(parts.tokens.size());
      if (left < 0 || left >= count || right < 0 || right >= count) {
        fail("{}: merge {} is of tokens {} and {}: expected ids below {}", source, rank, left,
             right, count);
      }
      const std::string merged = spelling(left) + spelling(right);
      merges.set(left, right, rank++, expect_token(merged, "the outcome of a merge"));
    }
  }

  const std::string& spelling(TokenId id) const {
    return parts.tokens[static_cast<std::size_t>(id)];
  }

  void index_added() {
    for (const TokenizerParts::AddedToken& token : parts.added) {
      const TokenId id = expect_token(token.content, "an added token");
      if (token.content.empty()) fail("{}: an added token is empty", source);
      if (token.normalized) {
        const std::string content = normalized(token.content);
        texts[static_cast<std::size_t>(id)] = text_of(content);
        added_normalized.add(content, id);
      } else {
        added.add(token.content, id);
      }
    }
  }

  // Whether no merge joins a marked space to what stands before it, other spaces aside. Then text
  // can be cut before its runs of spaces with the same outcome, and the pieces be remembered.
  bool merges_keep_spaces_in_front() const {
    const std::string& mark = space_mark();
    if (mark.empty() || first_character_size(mark) != mark.size()) return false;
    if (find(mark) == kNoToken || parts.unknown == mark) return false;
    return std::ranges::all_of(parts.merges, [&](const auto& merge) {
      return !spelling(merge.second).starts_with(mark) || spelling(merge.first).ends_with(mark);
    });
  }
};

// One call of encode(). Appends to `ids`; a word seen before is copied from where it stood.
class Tokenizer::Encoder {
 public:
  Encoder(const Tables& tables, std::vector<TokenId>& ids) : tables_(tables), ids_(ids) {}

  void encode(std::string_view text, bool starts_text) {
    for_pieces(text, tables_.added, [&](std::string_view piece) {
      encode_piece(piece, starts_text && piece.data() == text.data());
    });
  }

 private:
  // Calls encode(piece) between the tokens that `finder` finds.
  template <typename Encode>
  void for_pieces(std::string_view text, const TokenFinder& finder, const Encode& encode) {
    for (std::size_t done = 0; done < text.size();) {
      const TokenFinder::Match match = finder.find(text, done);
      if (match.begin > done) encode(text.substr(done, match.begin - done));
      if (match.id != kNoToken) ids_.push_back(match.id);
      done = match.end;
    }
  }

  void encode_piece(std::string_view piece, bool first) {
    const TokenizerParts& parts = tables_.parts;
    if (!parts.normalized_prefix.empty() || !parts.normalized_space.empty()) {
      piece = owned_.emplace_back(tables_.normalized(piece));
    }
    for_pieces(piece, tables_.added_normalized, [&](std::string_view text) {
      cut(with_spaces(text, first && text.data() == piece.data()), 0);
    });
  }

  // Metaspace's replacement of spaces, and the space before the text.
  std::string_view with_spaces(std::string_view text, bool first) {
    using Prefix = TokenizerParts::Prefix;
    const TokenizerParts& parts = tables_.parts;
    const bool prefixed =
        parts.prefix == Prefix::kAlways || (parts.prefix == Prefix::kFirst && first);
    if (parts.metaspace.empty()) {
      if (!prefixed || text.starts_with(' ')) return text;
      return owned_.emplace_back(" " + std::string(text));
    }
    std::string marked = replaced(text, " ", parts.metaspace);
    if (prefixed && !marked.starts_with(parts.metaspace)) marked.insert(0, parts.metaspace);
    return owned_.emplace_back(std::move(marked));
  }

  // Cuts `text` by the patterns from number `level` on, then at marked spaces.
  void cut(std::string_view text, std::size_t level) {
    if (level < tables_.patterns.size()) {
      tables_.patterns[level].split(text, [&](std::string_view word) { cut(word, level + 1); });
    } else if (tables_.parts.metaspace_split || tables_.spaces_begin_words) {
      cut_at_spaces(text);
    } else {
      encode_word(text);
    }
  }

  void cut_at_spaces(std::string_view text) {
    const std::string& mark = tables_.space_mark();
    std::size_t begin = 0;
    for (std::size_t place = text.find(mark, 1); place != text.npos;
         place = text.find(mark, place + 1)) {
      const bool in_run = text.substr(begin, place - begin).ends_with(mark);
      if (in_run && !tables_.parts.metaspace_split) continue;
      encode_word(text.substr(begin, place - begin));
      begin = place;
    }
    encode_word(text.substr(begin));
  }

  void encode_word(std::string_view word) {
    constexpr std::size_t kRememberedBytes = 64;
    constexpr std::size_t kRememberedWords = std::size_t{1} << 20;
    if (word.size() > kRememberedBytes) return encode_new_word(word);
    const auto [seen, is_new] = seen_.try_emplace(word);
    if (!is_new) {
      const Range range = seen->second;
      ids_.resize(ids_.size() + range.size);
      std::copy_n(ids_.begin() + range.begin, range.size, ids_.end() - range.size);
      return;
    }
    const std::size_t begin = ids_.size();
    encode_new_word(word);
    seen->second = {static_cast<std::ptrdiff_t>(begin),
                    static_cast<std::int32_t>(ids_.size() - begin)};
    if (seen_.size() > kRememberedWords) seen_.clear();
  }

  void encode_new_word(std::string_view word) {
    if (tables_.parts.ignore_merges) {
      const TokenId id =
          tables_.find(tables_.parts.byte_level ? byte_level_spelling(word) : std::string(word));
      if (id != kNoToken) return ids_.push_back(id);
    }
    const std::size_t first = ids_.size();
    if (tables_.parts.byte_level) {
      push_bytes(word, first);
    } else {
      push_characters(word, first);
    }
    tables_.merges.apply(ids_, first, scratch_);
  }

  void push_bytes(std::string_view word, std::size_t first) {
    for (const char byte : word) {
      const TokenId id = tables_.byte_tokens[static_cast<std::uint8_t>(byte)];
      if (id != kNoToken) {
        ids_.push_back(id);
      } else {
        push_unknown({&byte, 1}, first);
      }
    }
  }

  void push_characters(std::string_view word, std::size_t first) {
    while (!word.empty()) {
      const std::string_view character = word.substr(0, first_character_size(word));
      const TokenId id = tables_.find(character);
      if (id != kNoToken) {
        ids_.push_back(id);
      } else if (!push_fallback(character)) {
        push_unknown(character, first);
      }
      word.remove_prefix(character.size());
    }
  }

  // False where the character cannot stand as its bytes.
  bool push_fallback(std::string_view character) {
    const auto token = [&](char byte) {
      return tables_.byte_tokens[static_cast<std::uint8_t>(byte)];
    };
    if (!tables_.parts.byte_fallback || std::ranges::count(character, kNoToken, token) > 0) {
      return false;
    }
    std::ranges::transform(character, std::back_inserter(ids_), token);
    return true;
  }

  void push_unknown(std::string_view what, std::size_t first) {
    if (tables_.unknown == kNoToken) {
      fail(
          "{}: no token for {} and none for the unknown: expected a vocabulary of every byte, or "
          "one trained on such text",
          tables_.source,
          quote(tables_.parts.byte_level ? byte_level_spelling(what) : std::string(what)));
    }
    const bool in_run = ids_.size() > first && ids_.back() == tables_.unknown;
    if (!in_run || !tables_.parts.fuse_unknown) ids_.push_back(tables_.unknown);
  }

  struct Range {
    std::ptrdiff_t begin = 0;  // in ids_
    std::int32_t size = 0;
  };

  const Tables& tables_;
  std::vector<TokenId>& ids_;
  std::deque<std::string> owned_;  // texts that differ from what was given: words refer to them
  std::unordered_map<std::string_view, Range> seen_;
  Merges::Scratch scratch_;
};

Tokenizer::Tokenizer(TokenizerParts parts, std::string_view source)
    : tables_(std::make_shared<const Tables>(std::move(parts), source)) {}

Tokenizer Tokenizer::bytes() {
  TokenizerParts parts;
  parts.byte_level = true;
  for (const char32_t character : kByteCharacters) {
    append_utf8(parts.tokens.emplace_back(), character);
  }
  return Tokenizer(std::move(parts), "bytes");
}

std::vector<TokenId> Tokenizer::encode(std::string_view utf8, bool starts_text) const {
  if (tables_->needs_utf8()) check_utf8(utf8, "the text to encode");
  std::vector<TokenId> ids;
  Encoder(*tables_, ids).encode(utf8, starts_text);
  return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  std::string text;
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocabulary_size()) {
      fail("token {}: expected an id from 0 to {}", id, vocabulary_size() - 1);
    }
    text += tables_->texts[static_cast<std::size_t>(id)];
  }
  const TokenizerParts& parts = tables_->parts;
  const bool prefixed =
      !parts.normalized_prefix.empty() ||
      (!parts.metaspace.empty() && parts.prefix != TokenizerParts::Prefix::kNever);
  if (prefixed && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

int Tokenizer::vocabulary_size() const { return static_cast<int>(tables_->parts.tokens.size()); }

std::optional<TokenId> Tokenizer::find(std::string_view token) const {
  const TokenId id = tables_->find(token);
  return id == kNoToken ? std::nullopt : std::optional(id);
}

const TokenizerParts& Tokenizer::parts() const { return tables_->parts; }

Tokenizer open_tokenizer(const std::string& name_or_path) {
  constexpr std::size_t kLargestFile = std::size_t{256} << 20;
  if (name_or_path == "bytes") return Tokenizer::bytes();
  return Tokenizer::parse(read_file(name_or_path, kLargestFile), name_or_path);
}

}  // namespace concord::data

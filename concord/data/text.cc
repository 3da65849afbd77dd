#include "concord/data/text.h"

#include <algorithm>
#include <iterator>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/data/gzip.h"
#include "concord/data/utf8.h"

namespace concord::data {
std::string read_text(const std::filesystem::path& path) {
  constexpr std::size_t kLimit = std::size_t{1} << 36;  // bytes, decompressed
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (std::filesystem::is_directory(path)) {
    fail("{} is a folder: expected text files, plain or compressed by gzip", path.string());
  }
  std::string text = read_file(path, kLimit);
  if (is_gzip(text)) text = gunzip(text, kLimit, path.string());
  check_utf8(text, path.string());
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  if (text.empty()) fail("{}: the file is empty: expected text", path.string());
  return text;
}

void TokenStream::append(std::span<const TokenId> ids) {
  if (narrow_) {
    std::ranges::transform(ids, std::back_inserter(two_bytes_),
                           [](TokenId id) { return static_cast<std::uint16_t>(id); });
  } else {
    four_bytes_.insert(four_bytes_.end(), ids.begin(), ids.end());
  }
}

void TokenStream::read(std::size_t first, std::span<TokenId> ids) const {
  CONCORD_CHECK(first <= size() && ids.size() <= size() - first, "{} tokens from {} of {}",
                ids.size(), first, size());
  const auto place = static_cast<std::ptrdiff_t>(first);
  if (narrow_) {
    std::copy_n(two_bytes_.begin() + place, ids.size(), ids.begin());
  } else {
    std::copy_n(four_bytes_.begin() + place, ids.size(), ids.begin());
  }
}

TokenStream to_tokens(const Tokenizer& tokenizer, std::string_view text) {
  TokenStream tokens(tokenizer.vocabulary_size());
  tokens.append(tokenizer.encode(text));
  return tokens;
}

TextParts split_text(std::string_view text, double fraction, std::string_view source) {
  const bool is_part = fraction > 0 && fraction < 1;
  std::size_t first = text.size();
  if (is_part) first -= static_cast<std::size_t>(static_cast<double>(text.size()) * fraction);
  while (first < text.size() && continues_character(text[first])) ++first;
  if (first == 0 || first == text.size()) {
    fail(
        "{}: a fraction of {} of its {} bytes for validation leaves {} for it and {} for training: "
        "expected some for each",
        source, fraction, text.size(), text.size() - first, first);
  }
  return {text.substr(0, first), text.substr(first)};
}

}  // namespace concord::data

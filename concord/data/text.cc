#include "concord/data/text.h"

#include <algorithm>
#include <iterator>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/data/gzip.h"
#include "concord/data/utf8.h"

namespace concord::data {
namespace {

template <typename T>
std::vector<T> tail_of(std::vector<T>& values, std::size_t first) {
  const auto place = values.begin() + static_cast<std::ptrdiff_t>(std::min(first, values.size()));
  std::vector<T> tail(place, values.end());
  values.erase(place, values.end());
  return tail;
}

}  // namespace

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

TokenStream TokenStream::split_off(std::size_t first) {
  TokenStream tail(0);
  tail.narrow_ = narrow_;
  tail.two_bytes_ = tail_of(two_bytes_, first);
  tail.four_bytes_ = tail_of(four_bytes_, first);
  return tail;
}

TokenStream read_tokens(const Tokenizer& tokenizer, std::span<const std::filesystem::path> files) {
  TokenStream tokens(tokenizer.vocabulary_size());
  for (const std::filesystem::path& file : files) {
    tokens.append(tokenizer.encode(read_text(file)));
  }
  return tokens;
}

TokenParts split_tokens(TokenStream tokens, double fraction) {
  const std::size_t all = tokens.size();
  const bool is_part = fraction > 0 && fraction < 1;
  const auto count =
      is_part ? static_cast<std::size_t>(static_cast<double>(all) * fraction) : std::size_t{0};
  if (count == 0 || count == all) {
    fail(
        "a fraction of {} of {} tokens for validation leaves {} for it and {} for training: "
        "expected some for each",
        fraction, all, count, all - count);
  }
  TokenStream validation = tokens.split_off(all - count);
  return {std::move(tokens), std::move(validation)};
}

}  // namespace concord::data

#include "concord/data/token_windows.h"

#include <algorithm>

#include "concord/base/error.h"

namespace concord::data {
namespace {

template <typename Token>
class TokenWindows final : public Dataset {
 public:
  TokenWindows(std::vector<Token> row, std::int64_t size, std::int64_t length, int vocabulary)
      : Dataset(size, length, vocabulary), row_(std::move(row)) {}

  void read_tokens(std::int64_t index, std::span<std::int32_t> tokens,
                   std::span<std::int32_t> labels) const override {
    CONCORD_CHECK(index >= 0 && index < size(), "{} of {}", index, size());
    const Token* begin = row_.data() + static_cast<std::size_t>(index) * tokens.size();
    std::copy_n(begin, tokens.size(), tokens.data());
    std::copy_n(begin + 1, labels.size(), labels.data());
  }

 private:
  std::vector<Token> row_;
};

template <typename Token>
std::unique_ptr<Dataset> windows_of(std::vector<Token> row, std::int64_t length, int vocabulary,
                                    std::string_view source) {
  if (length < 1) fail("windows of {} tokens: expected at least 1", length);
  const std::int64_t size = (static_cast<std::int64_t>(row.size()) - 1) / length;
  if (size < 1) {
    fail("{} has {} tokens: expected at least {}, one window and the token after it", source,
         row.size(), length + 1);
  }
  for (std::size_t i = 0; i < row.size(); ++i) {
    const auto token = static_cast<std::int64_t>(row[i]);
    if (token >= 0 && token < vocabulary) continue;
    fail("{}: token {} is {}: expected 0 to {}", source, i, token, vocabulary - 1);
  }
  return std::make_unique<TokenWindows<Token>>(std::move(row), size, length, vocabulary);
}

}  // namespace

std::unique_ptr<Dataset> token_windows(TokenRow row, std::int64_t length, int vocabulary,
                                       std::string_view source) {
  return windows_of(std::move(row), length, vocabulary, source);
}

std::unique_ptr<Dataset> token_windows(WideTokenRow row, std::int64_t length, int vocabulary,
                                       std::string_view source) {
  return windows_of(std::move(row), length, vocabulary, source);
}

}  // namespace concord::data

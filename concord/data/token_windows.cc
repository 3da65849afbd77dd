#include "concord/data/token_windows.h"

#include "concord/base/error.h"

namespace concord::data {
namespace {

class TokenWindows final : public Dataset {
 public:
  TokenWindows(TokenStream stream, std::int64_t size, std::int64_t length, int vocabulary)
      : Dataset(size, length, vocabulary), stream_(std::move(stream)) {}

  void read_tokens(std::int64_t index, std::span<std::int32_t> tokens,
                   std::span<std::int32_t> labels) const override {
    CONCORD_CHECK(index >= 0 && index < size(), "{} of {}", index, size());
    const std::size_t begin = static_cast<std::size_t>(index) * tokens.size();
    stream_.read(begin, tokens);
    stream_.read(begin + 1, labels);
  }

 private:
  TokenStream stream_;
};

}  // namespace

std::unique_ptr<Dataset> token_windows(TokenStream tokens, std::int64_t length, int vocabulary,
                                       std::string_view source) {
  if (length < 1) fail("windows of {} tokens: expected at least 1", length);
  const std::int64_t size = (static_cast<std::int64_t>(tokens.size()) - 1) / length;
  if (size < 1) {
    fail("{} has {} tokens: expected at least {}, one window and the token after it", source,
         tokens.size(), length + 1);
  }
  return std::make_unique<TokenWindows>(std::move(tokens), size, length, vocabulary);
}

}  // namespace concord::data

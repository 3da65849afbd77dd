// Windows of a long row of tokens, for learning to predict the next one: sample i is the tokens
// [i L, (i + 1) L), its labels are the tokens one further on. Windows do not overlap; what is left
// at the end, shorter than a window, is not used.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "concord/data/dataset.h"

namespace concord::data {

// Tokens in as few bytes as the vocabulary allows.
using TokenRow = std::vector<std::uint16_t>;
using WideTokenRow = std::vector<std::int32_t>;

// `row` holds tokens below `vocabulary`; throws Error naming `source` when it does not, or when it
// is too short for one window and the token after it.
std::unique_ptr<Dataset> token_windows(TokenRow row, std::int64_t length, int vocabulary,
                                       std::string_view source);
std::unique_ptr<Dataset> token_windows(WideTokenRow row, std::int64_t length, int vocabulary,
                                       std::string_view source);

}  // namespace concord::data

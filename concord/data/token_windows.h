// Windows of a long row of tokens, for learning to predict the next one: sample i is the tokens
// [i L, (i + 1) L), its labels are the tokens one further on. Windows do not overlap; what is left
// at the end, shorter than a window, is not used.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "concord/data/dataset.h"
#include "concord/data/text.h"

namespace concord::data {

// Windows of `length` tokens, which are below `vocabulary`. Throws Error naming `source` when there
// are too few for one window and the token after it.
std::unique_ptr<Dataset> token_windows(TokenStream tokens, std::int64_t length, int vocabulary,
                                       std::string_view source);

}  // namespace concord::data

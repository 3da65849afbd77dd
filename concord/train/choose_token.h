// Which token follows, by a language model's logits.
#pragma once

#include <cstdint>
#include <span>

namespace concord::train {

struct ChoiceOptions {
  // Logits are divided by it: below 1 likely tokens become likelier, above 1 less so. 0: always the
  // likeliest token.
  double temperature = 1;
  std::int64_t top_k =
      0;  // only the so many likeliest tokens are chosen from (Fan et al. 2018); 0: all
};

// The id of a token drawn from softmax(logits / temperature), restricted to the top_k largest.
// `uniform` in [0, 1) decides: the draw is a pure function. Of equal logits the lower id counts as
// the larger.
std::int32_t choose_token(std::span<const float> logits, const ChoiceOptions& options,
                          double uniform);

}  // namespace concord::train

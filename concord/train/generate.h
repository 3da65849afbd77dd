// Texts continued by a language model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "concord/train/config.h"

namespace concord::train {

struct GenerationRequest {
  std::string prompt;  // UTF-8
  std::int64_t tokens = 100;
  double temperature = 0.8;           // 0: always the likeliest token
  std::optional<std::int64_t> top_k;  // choose from the so many likeliest tokens; of all otherwise
  std::uint64_t seed = 1;
};

struct Generation {
  std::string text;  // what follows the prompt, UTF-8
  std::int64_t prompt_tokens = 0;
  std::int64_t tokens = 0;  // of the text
  double prompt_seconds = 0;
  double seconds = 0;  // after the prompt was read
  // Of the tokens after the first, which the reading of the prompt gives; nullopt where there are
  // none.
  std::optional<double> tokens_per_second() const {
    if (tokens < 2) return std::nullopt;
    return static_cast<double>(tokens - 1) / seconds;
  }
};

// Continues the prompt with the model of a checkpoint (its folder, or a run's). `on_text` is called
// with each part of the text, in whole characters, as soon as it is known. A special token ends the
// text and is not part of it.
//
// The model sees at most as many tokens as it has learned from at once (data.length): when there
// are more, it forgets all but the last half of those, and reads this half anew. So a prompt may be
// longer, too.
//
// A token's draw depends on the seed and the token's place in the text alone. The same request
// gives the same text as long as logits have the same bits (docs/determinism.md).
//
// Throws Error for a request out of range, a prompt that is empty, not UTF-8 or has a character
// without a token, or where the checkpoint holds no language model.
Generation generate(const Config& config, const std::filesystem::path& checkpoint,
                    const GenerationRequest& request,
                    const std::function<void(std::string_view)>& on_text = {});

}  // namespace concord::train

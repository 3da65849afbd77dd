// Hidden tokens of a text filled in by a masked language model.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "concord/data/merges.h"
#include "concord/train/config.h"

namespace concord::train {

struct FilledText {
  struct Candidate {
    data::TokenId id;
    std::string token;  // bytes that are no UTF-8 stand as U+FFFD here and in `text`
    double probability;
  };
  std::string text;                            // with the likeliest tokens
  std::vector<std::vector<Candidate>> places;  // for each hidden token, the likeliest first
};

// Fills in the tokens of `text` that data.mask_token hides, or [MASK] where that is empty, with the
// model of a checkpoint (its folder, or a run's), all at once. Throws Error for a text that is not
// UTF-8, hides nothing or has more tokens than the model has learned from at once, or where the
// checkpoint's model fills no masks.
FilledText fill_masks(const Config& config, const std::filesystem::path& checkpoint,
                      std::string_view text, int candidates = 5);

}  // namespace concord::train

// Learns a byte-level byte-pair encoding from text (Sennrich et al., 2016, algorithm 1, on bytes as
// GPT-2 does, Radford et al., 2019).
//
// Ids: the 256 bytes, the merges in the order in which they were learned, the special tokens. Each
// merge joins the pair of neighbouring tokens that occurs most often within the words of the text,
// of equal ones that with the smaller left id, then the smaller right id: the same texts give the
// same tokenizer on every machine.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "concord/data/tokenizer.h"

namespace concord::data {

struct BpeOptions {
  int vocabulary_size = 8192;  // bytes and special tokens included
  std::vector<std::string> special_tokens = {"<|endoftext|>"};
  // Called now and then with the merges learned and those wanted.
  std::function<void(int learned, int wanted)> progress;
};

// The texts must be UTF-8. Special tokens in them are text like any other here.
// Throws Error when the size is below 256 and the special tokens, when a special token is empty or
// named twice, or when too few pairs occur twice for a vocabulary of that size.
Tokenizer train_bpe(std::span<const std::string> texts, const BpeOptions& options);

}  // namespace concord::data

// Masking: tokens hidden from a model that learns to fill them in (Devlin et al. 2019, section
// 3.1). Of each sample the same number of tokens is chosen, 15 % of them to the nearest and at
// least one. A chosen one becomes the mask token with probability 0.8 and a random token with 0.1,
// and stays as it is otherwise. Which are chosen, and what they become, is a pure function of
// (seed, epoch, sample index), whichever thread or rank does it; so masks change from epoch to
// epoch (Liu et al. 2019, section 4.1). Thread safety: const.
#pragma once

#include <cstdint>
#include <span>

#include "concord/data/merges.h"

namespace concord::data {

class Masking {
 public:
  // Random tokens are below `vocabulary`.
  Masking(int vocabulary, TokenId mask, std::uint64_t seed)
      : vocabulary_(static_cast<std::uint32_t>(vocabulary)), mask_(mask), seed_(seed) {}

  // How many of `length` tokens are chosen.
  static std::int64_t chosen(std::int64_t length);

  // Hides the chosen ones of a sample's tokens. Their labels become what they were, the labels of
  // all others -1.
  void apply(std::int64_t epoch, std::int64_t index, std::span<TokenId> tokens,
             std::span<std::int32_t> labels) const;

 private:
  std::uint32_t vocabulary_;
  TokenId mask_;
  std::uint64_t seed_;
};

}  // namespace concord::data

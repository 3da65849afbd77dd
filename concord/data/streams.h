// The purposes for which this folder draws random numbers (RandomStream::stream). The numbers are
// part of what a seed means: changing one changes every run.
#pragma once

#include <cstdint>

namespace concord::data {

constexpr std::uint32_t kShuffleStream = 0xda7a0001;
constexpr std::uint32_t kAugmentStream = 0xda7a0002;
constexpr std::uint32_t kSyntheticNoiseStream = 0xda7a0003;
constexpr std::uint32_t kSyntheticOffsetStream = 0xda7a0004;
constexpr std::uint32_t kSyntheticLabelStream = 0xda7a0005;
constexpr std::uint32_t kSyntheticValueStream = 0xda7a0006;
constexpr std::uint32_t kMaskStream = 0xda7a0007;

}  // namespace concord::data

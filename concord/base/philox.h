// Philox4x32-10, a counter-based random generator: a pure function from (key, counter) to 128
// random bits. Concord draws every random number through it, keyed by what the number is for and
// never by who computes it, so that any rank or thread can compute any draw.
//
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
// Thread safety: pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace concord {

using PhiloxBlock = std::array<std::uint32_t, 4>;

// The 10-round block function.
constexpr PhiloxBlock philox4x32(PhiloxBlock counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// A stream of draws: everything about one use of randomness except the element index.
struct RandomStream {
  std::uint64_t seed = 0;    // the job's seed
  std::uint32_t stream = 0;  // which op or purpose (stable for a given model or data set)
  std::uint32_t step = 0;    // training step or epoch

  // 128 random bits for block `index` of this stream.
  constexpr PhiloxBlock block(std::uint64_t index) const {
    return philox4x32(
        {static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), step, stream},
        {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  }
  // 32 random bits for element `index`; four consecutive elements share a block.
  constexpr std::uint32_t bits(std::uint64_t index) const { return block(index / 4)[index % 4]; }
};

// The random stream that belongs to a name: its 32-bit FNV-1a hash (Fowler, Noll,
// Vo; RFC 9923).
constexpr std::uint32_t random_stream(std::string_view name) {
  std::uint32_t hash = 0x811C9DC5;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x01000193;
  return hash;
}

// Uniform in [0, 1) with 24 bits, exactly representable as float.
constexpr float uniform01(std::uint32_t bits) {
  return static_cast<float>(bits >> 8) * (1.0f / 16777216.0f);
}

// Uniform in {0, ..., bound - 1} by multiply-shift; the bias is below bound / 2^32.
constexpr std::uint32_t uniform_below(std::uint32_t bits, std::uint32_t bound) {
  return static_cast<std::uint32_t>((std::uint64_t{bits} * bound) >> 32);
}

// A standard normal draw from two words (Box and Muller 1958).
float normal01(std::uint32_t bits0, std::uint32_t bits1);

}  // namespace concord

// What codecs do with the numbers of a chunk, in vectors (Highway). Results do not depend on how
// wide these are: sums are taken in 16 lanes, whatever the processor has.
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "concord/base/philox.h"

namespace concord::comm {

// kept[i] += values[i]; and the same, and the sum of the magnitudes.
void add_values(const float* values, float* kept, std::size_t count);
double add_and_sum_magnitudes(const float* values, float* kept, std::size_t count);
// Whether every |x[i]| is below `bound`; not where one is NaN.
bool all_below(const float* x, float bound, std::size_t count);
// The largest |x[i]|, 0 of none.
float largest_magnitude(const float* x, std::size_t count);

// Rounded to the nearest, of two the even one. Beyond 65504 f16 stays there.
void to_bf16(const float* x, std::uint16_t* out, std::size_t count);
void to_f16(const float* x, std::uint16_t* out, std::size_t count);
// out = x, or out += x.
void from_bf16(const std::uint16_t* x, bool adds, float* out, std::size_t count);
void from_f16(const std::uint16_t* x, bool adds, float* out, std::size_t count);

// A bit for each number, 1 where it is below zero, from the lowest of a byte on; the last byte ends
// with zeros.
void signs_of(const float* x, std::uint8_t* bits, std::size_t count);
// The same, and x[i] -= scale with the sign of x[i].
void take_signs(float* x, float scale, std::uint8_t* bits, std::size_t count);
// out = scale with that sign, or out += that.
void from_signs(const std::uint8_t* bits, float scale, bool adds, float* out, std::size_t count);

// x in runs of `run`, a multiple of 16, but for the last: scales[r] is the largest magnitude of run
// r, or 0 where that is below 1e-35; levels[i] = floor(|x[i]| * most / scale + u) with the sign of
// x[i], at most `most`, and 0 where the scale is; u = (draws[i] + 1/2) / 65536.
void round_at_random(const float* x, std::size_t run, float most, const std::uint16_t* draws,
                     float* scales, std::int8_t* levels, std::size_t count);
// The same with this scale.
void round_at_random(const float* x, float scale, float most, const std::uint16_t* draws,
                     std::int8_t* levels, std::size_t count);
// out = scale * x, or out += that. By runs: scales[r] * factor.
void from_int8(const std::int8_t* x, float scale, bool adds, float* out, std::size_t count);
void from_int8(const std::int8_t* x, std::size_t run, const float* scales, float factor, bool adds,
               float* out, std::size_t count);
// Two to a byte, in two's complement, the first in the lower half; and back, into an even number.
void pack_nibbles(const std::int8_t* x, std::uint8_t* out, std::size_t count);
void unpack_nibbles(const std::uint8_t* x, std::int8_t* out, std::size_t count);
// 16 random bits for each number: block first + i / 8 of the stream. `draws` lies at a multiple of
// 4 bytes.
void draw16(const RandomStream& random, std::uint64_t first, std::uint16_t* draws,
            std::size_t count);

// The largest magnitudes of groups of at most `group` numbers each, which are apart. Returns how
// many there are, at most count.
std::size_t group_maxima(const float* x, std::size_t group, float* maxima, std::size_t count);
// Where |x[i]| >= threshold, by rising i; stops at `most`. Returns how many.
std::size_t find_magnitudes(const float* x, float threshold, std::uint16_t* places,
                            std::size_t most, std::size_t count);

}  // namespace concord::comm

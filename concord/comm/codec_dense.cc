// Codecs whose frames have a place for every number. A frame is four bytes, 0, and
//   fp16, bf16     a number each
//   qsgd8, qsgd4   of each 256 numbers the largest magnitude s, as f32; then the levels of all
//                  numbers, 8 or 4 bits of two's complement
//   ternary        s as f32; a bit for each number, whether it is below zero; and one for each,
//                  whether it is 0
//   sign, vote     s as f32, the scale, which is 1 of a vote; a bit for each number, whether it
//                  is below zero
// Bits go from the lowest of a byte on.
//
// Bounds, of what is encoded x and what is decoded y:
//   fp16      |y - x| <= 2^-11 |x| where 2^-14 <= |x| <= 65504; larger ones become 65504
//   bf16      |y - x| <= 2^-8 |x| where |x| is at least the smallest normal number
//   qsgd      |y - x| <= s / L with L = 127 or 7, and E y = x but for 2^-17 s / L, since 16 bits
//             are drawn (QSGD, section 3.1, with the largest magnitude in place of the 2-norm, as
//             in its section 4). Where s is below 1e-35, y is 0.
//   ternary   likewise E y = x, |y| <= s (TernGrad, equation 3); where it clips, of the clipped x
//             (its equation 9)
//   sign      |y - x|^2 <= (1 - |x|_1^2 / (d |x|_2^2)) |x|_2^2 (EF-signSGD, lemma 8)
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "concord/base/error.h"
#include "concord/comm/codec_families.h"
#include "concord/comm/codec_vectors.h"

namespace concord::comm {
namespace {

constexpr std::size_t kHeader = sizeof(std::uint32_t);
constexpr auto kMost = static_cast<std::size_t>(kCodecChunk);

std::size_t bytes_of_bits(std::size_t count) { return (count + 7) / 8; }

void expect_no_flags(std::uint32_t flags) {
  if (flags != 0) fail("an encoding with flags {:#x}: expected 0", flags);
}

void put_float(float x, std::byte* to) { std::memcpy(to, &x, sizeof x); }

// Not below zero, and finite.
float take_scale(const std::byte* from) {
  float x;
  std::memcpy(&x, from, sizeof x);
  if (!(x >= 0) || !std::isfinite(x)) fail("an encoding of scale {}", x);
  return x;
}

class Half final : public Codec {
 public:
  explicit Half(bool is_bf16) : is_bf16_(is_bf16) {}
  int memories() const override { return 0; }
  std::size_t most_bytes(std::int64_t count) const override {
    return kHeader + 2 * static_cast<std::size_t>(count);
  }
  bool has_fixed_size() const override { return true; }

 private:
  Encoded encode_finite(std::span<const float> values, std::span<float* const>, const CodecPlace&,
                        std::byte* body) const override {
    auto* const out = reinterpret_cast<std::uint16_t*>(body);
    (is_bf16_ ? to_bf16 : to_f16)(values.data(), out, values.size());
    return {2 * values.size()};
  }
  void decode_finite(std::span<const std::byte> body, std::uint32_t flags, bool adds,
                     std::span<float> out) const override {
    expect_no_flags(flags);
    (is_bf16_ ? from_bf16 : from_f16)(reinterpret_cast<const std::uint16_t*>(body.data()), adds,
                                      out.data(), out.size());
  }

  bool is_bf16_;
};

// Of those that keep a residual: what is there to send, where that is kept.
const float* with_residual(std::span<const float> values, std::span<float* const> memory) {
  if (memory.empty()) return values.data();
  add_values(values.data(), memory[0], values.size());
  return memory[0];
}

class Levels final : public Codec {
 public:
  Levels(int bits, bool feeds_back)
      : bits_(bits), most_(bits == 8 ? 127.0f : 7.0f), feeds_back_(feeds_back) {}
  int memories() const override { return feeds_back_ ? 1 : 0; }
  std::size_t most_bytes(std::int64_t count) const override {
    const auto numbers = static_cast<std::size_t>(count);
    return kHeader + scales_bytes(numbers) + (bits_ == 8 ? numbers : (numbers + 1) / 2);
  }
  bool has_fixed_size() const override { return true; }

 private:
  static constexpr std::size_t kRun = 256;
  static std::size_t scales_bytes(std::size_t count) {
    return (count + kRun - 1) / kRun * sizeof(float);
  }

  Encoded encode_finite(std::span<const float> values, std::span<float* const> memory,
                        const CodecPlace& place, std::byte* body) const override {
    alignas(64) thread_local std::array<std::uint16_t, kMost> draws;
    thread_local std::array<std::int8_t, kMost> own_levels;
    const std::size_t count = values.size(), behind_scales = scales_bytes(count);
    const float* const x = with_residual(values, memory);
    draw16(place.random, place.first, draws.data(), count);
    auto* const scales = reinterpret_cast<float*>(body);
    std::byte* const out = body + behind_scales;
    std::int8_t* const levels =
        bits_ == 8 ? reinterpret_cast<std::int8_t*>(out) : own_levels.data();
    round_at_random(x, kRun, most_, draws.data(), scales, levels, count);
    if (feeds_back_) from_int8(levels, kRun, scales, -1 / most_, /*adds=*/true, memory[0], count);
    if (bits_ == 8) return {behind_scales + count};
    pack_nibbles(levels, reinterpret_cast<std::uint8_t*>(out), count);
    return {behind_scales + (count + 1) / 2};
  }
  void decode_finite(std::span<const std::byte> body, std::uint32_t flags, bool adds,
                     std::span<float> out) const override {
    expect_no_flags(flags);
    thread_local std::array<std::int8_t, kMost> own_levels;
    const std::size_t behind_scales = scales_bytes(out.size());
    for (std::size_t at = 0; at < behind_scales; at += sizeof(float)) take_scale(body.data() + at);
    const std::byte* const from = body.data() + behind_scales;
    const std::int8_t* levels = reinterpret_cast<const std::int8_t*>(from);
    if (bits_ == 4) {
      unpack_nibbles(reinterpret_cast<const std::uint8_t*>(from), own_levels.data(), out.size());
      levels = own_levels.data();
    }
    from_int8(levels, kRun, reinterpret_cast<const float*>(body.data()), 1 / most_, adds,
              out.data(), out.size());
  }

  int bits_;
  float most_;
  bool feeds_back_;
};

class Ternary final : public Codec {
 public:
  explicit Ternary(double clip) : clip_(clip) {}
  int memories() const override { return 0; }
  std::size_t most_bytes(std::int64_t count) const override {
    return kHeader + sizeof(float) + 2 * bytes_of_bits(static_cast<std::size_t>(count));
  }
  bool has_fixed_size() const override { return true; }

 private:
  // The largest magnitude, or what is clipped to.
  float scale_of(std::span<const float> values) const {
    const float largest = largest_magnitude(values.data(), values.size());
    if (clip_ == 0) return largest;
    double squares = 0;
    for (const float x : values) squares += double{x} * double{x};
    const double deviation = std::sqrt(squares / static_cast<double>(values.size()));
    return static_cast<float>(std::min(double{largest}, clip_ * deviation));
  }

  Encoded encode_finite(std::span<const float> values, std::span<float* const>,
                        const CodecPlace& place, std::byte* body) const override {
    if (values.empty()) {
      put_float(0, body);
      return {sizeof(float)};
    }
    alignas(64) thread_local std::array<std::uint16_t, kMost> draws;
    thread_local std::array<std::int8_t, kMost> levels;
    const std::size_t count = values.size(), plane = bytes_of_bits(count);
    float scale = scale_of(values);
    if (scale < 1e-35f) scale = 0;
    put_float(scale, body);
    draw16(place.random, place.first, draws.data(), count);
    round_at_random(values.data(), scale, 1, draws.data(), levels.data(), count);
    auto* const below = reinterpret_cast<std::uint8_t*>(body) + sizeof(float);
    std::uint8_t* const zero = below + plane;
    std::memset(below, 0, 2 * plane);
    for (std::size_t i = 0; i < count; ++i) {
      below[i / 8] = static_cast<std::uint8_t>(below[i / 8] | (levels[i] < 0 ? 1 : 0) << i % 8);
      zero[i / 8] = static_cast<std::uint8_t>(zero[i / 8] | (levels[i] == 0 ? 1 : 0) << i % 8);
    }
    return {sizeof(float) + 2 * plane};
  }
  void decode_finite(std::span<const std::byte> body, std::uint32_t flags, bool adds,
                     std::span<float> out) const override {
    expect_no_flags(flags);
    thread_local std::array<std::int8_t, kMost> levels;
    const float scale = take_scale(body.data());
    const auto* const below = reinterpret_cast<const std::uint8_t*>(body.data()) + sizeof(float);
    const std::uint8_t* const zero = below + bytes_of_bits(out.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      const int is_zero = zero[i / 8] >> i % 8 & 1, is_below = below[i / 8] >> i % 8 & 1;
      levels[i] = static_cast<std::int8_t>((1 - is_zero) * (1 - 2 * is_below));
    }
    from_int8(levels.data(), scale, adds, out.data(), out.size());
  }

  double clip_;
};

class Sign final : public Codec {
 public:
  explicit Sign(bool votes) : votes_(votes) {}
  int memories() const override { return votes_ ? 0 : 1; }
  std::size_t most_bytes(std::int64_t count) const override {
    return kHeader + sizeof(float) + bytes_of_bits(static_cast<std::size_t>(count));
  }
  bool has_fixed_size() const override { return true; }

 private:
  Encoded encode_finite(std::span<const float> values, std::span<float* const> memory,
                        const CodecPlace&, std::byte* body) const override {
    const std::size_t count = values.size();
    auto* const bits = reinterpret_cast<std::uint8_t*>(body) + sizeof(float);
    float scale = 1;
    if (votes_) {
      signs_of(values.data(), bits, count);
    } else {
      const double sum = add_and_sum_magnitudes(values.data(), memory[0], count);
      scale = static_cast<float>(sum / std::max(1.0, static_cast<double>(count)));
      take_signs(memory[0], scale, bits, count);
    }
    put_float(scale, body);
    return {sizeof(float) + bytes_of_bits(count)};
  }
  void decode_finite(std::span<const std::byte> body, std::uint32_t flags, bool adds,
                     std::span<float> out) const override {
    expect_no_flags(flags);
    from_signs(reinterpret_cast<const std::uint8_t*>(body.data()) + sizeof(float),
               take_scale(body.data()), adds, out.data(), out.size());
  }

  bool votes_;
};

}  // namespace

std::unique_ptr<Codec> make_half(bool is_bf16) { return std::make_unique<Half>(is_bf16); }
std::unique_ptr<Codec> make_levels(int bits, const CodecParameters& parameters) {
  return std::make_unique<Levels>(bits, parameters.at("feedback") != 0);
}
std::unique_ptr<Codec> make_ternary(const CodecParameters& parameters) {
  return std::make_unique<Ternary>(parameters.at("clip"));
}
std::unique_ptr<Codec> make_sign() { return std::make_unique<Sign>(/*votes=*/false); }
std::unique_ptr<Codec> make_vote() { return std::make_unique<Sign>(/*votes=*/true); }

}  // namespace concord::comm

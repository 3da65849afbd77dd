// Codecs that send some of a chunk's numbers. A frame is four bytes, how many numbers there are;
// their places in the chunk, 16 bits each and rising, filled up to a multiple of 4 bytes with
// zeros; and the numbers, as f32. Where that would take more than all numbers, the first four bytes
// have kDense set, and all numbers follow.
//
// What is not sent is kept, so that frame and residual make up what there was, number by number.
//
//   topk       exactly k = ceil(density n) of n numbers, those of the largest magnitude and, of
//              equal ones, the first (Aji and Heafield, "Sparse communication for distributed
//              gradient descent", EMNLP 2017). With momentum m, after Lin et al., "Deep gradient
//              compression", ICLR 2018, equation 7 and section 3.2: a velocity u = m u + g is added
//              up in the place of the gradient g, and both are 0 where they were sent (factor
//              masking). With warmup W the density of step s < W is 1/4 (4 density)^(s / W), so
//              that it falls as theirs does, from 25 % on, by the same factor with every step.
//              ||x - y||^2 <= (1 - k / n) ||x||^2 (Stich et al. 2018, lemma A.1).
//   randomk    k places drawn without replacement; in expectation the same bound
//   threshold  all of at least a magnitude: |x - y| < that (Strom, "Scalable distributed DNN
//   training
//              using commodity GPU cloud computing", Interspeech 2015, who sends signs of them)
//   adaptive   the same, by the magnitude which the given share of a sample of 1024 numbers has
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "concord/base/error.h"
#include "concord/comm/codec_families.h"
#include "concord/comm/codec_vectors.h"

namespace concord::comm {
namespace {

constexpr std::size_t kHeader = sizeof(std::uint32_t);
constexpr auto kMost = static_cast<std::size_t>(kCodecChunk);
constexpr std::uint32_t kDense = 0x40000000;

std::size_t bytes_of_pairs(std::size_t count) {
  return (count + 1) / 2 * 4 + count * sizeof(float);
}
// Which take no more than all numbers.
std::size_t most_pairs(std::size_t numbers) { return numbers * 2 / 3; }

std::size_t share_of(double density, std::size_t count) {
  const auto share = static_cast<std::size_t>(std::ceil(density * static_cast<double>(count)));
  return std::min(count, std::max<std::size_t>(1, share));
}

// The k-th largest of the numbers, which are put in another order.
float kth_largest(std::span<float> numbers, std::size_t k) {
  const auto kth = numbers.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(numbers.begin(), kth, numbers.end(), std::greater());
  return *kth;
}

using Places = std::array<std::uint16_t, kMost>;

// Of a frame with these places of x: its body.
std::size_t put_pairs(const float* x, std::span<const std::uint16_t> places, std::byte* to) {
  std::memcpy(to, places.data(), places.size_bytes());
  if (places.size() % 2 != 0) std::memset(to + places.size_bytes(), 0, sizeof(std::uint16_t));
  to += (places.size() + 1) / 2 * 4;
  for (const std::uint16_t place : places) {
    std::memcpy(to, x + place, sizeof(float));
    to += sizeof(float);
  }
  return bytes_of_pairs(places.size());
}

class Sparse : public Codec {
 public:
  int memories() const override { return 1; }

 protected:
  // All of it, which leaves nothing to keep.
  static Encoded put_all(float* kept, std::size_t count, std::byte* body) {
    std::memcpy(body, kept, count * sizeof(float));
    std::fill_n(kept, count, 0.0f);
    return {count * sizeof(float), kDense};
  }
  static Encoded put(float* kept, std::span<const std::uint16_t> places, std::byte* body) {
    const std::size_t bytes = put_pairs(kept, places, body);
    for (const std::uint16_t place : places) kept[place] = 0;
    return {bytes, static_cast<std::uint32_t>(places.size())};
  }

 private:
  void decode_finite(std::span<const std::byte> body, std::uint32_t flags, bool adds,
                     std::span<float> out) const override {
    const bool is_dense = flags == kDense;
    const std::size_t count = is_dense ? out.size() : flags;
    if (count > out.size() ||
        body.size() != (is_dense ? count * sizeof(float) : bytes_of_pairs(count))) {
      fail("{} bytes for {} of {} numbers", body.size(), count, out.size());
    }
    const auto* const numbers =
        reinterpret_cast<const float*>(body.data() + (is_dense ? 0 : (count + 1) / 2 * 4));
    if (!all_below(numbers, std::numeric_limits<float>::infinity(), count)) {
      fail("an encoding of numbers that are not finite");
    }
    if (is_dense) {
      if (adds) return add_values(numbers, out.data(), count);
      std::copy_n(numbers, count, out.data());
      return;
    }
    const auto* const places = reinterpret_cast<const std::uint16_t*>(body.data());
    for (std::size_t i = 0; i < count; ++i) {
      if (places[i] < out.size() && (i == 0 || places[i] > places[i - 1])) continue;
      fail("place {} behind place {} of {} numbers", places[i], i == 0 ? -1 : places[i - 1],
           out.size());
    }
    if (!adds) std::ranges::fill(out, 0.0f);
    for (std::size_t i = 0; i < count; ++i) out[places[i]] += numbers[i];
  }
};

// The places of the k largest magnitudes, of equal ones the first, by rising place.
std::span<const std::uint16_t> largest_places(const float* x, std::size_t count, std::size_t k,
                                              Places& places) {
  thread_local std::array<float, kMost> magnitudes;
  // The largest of each group of numbers: where k of those are at least so large, so are k numbers.
  float least = 0;
  for (const std::size_t group : {64, 16, 4}) {
    if (4 * k * group > count) continue;
    const std::size_t groups = group_maxima(x, group, magnitudes.data(), count);
    least = kth_largest(std::span(magnitudes).first(groups), k);
    break;
  }
  const std::size_t found = find_magnitudes(x, least, places.data(), count, count);
  for (std::size_t i = 0; i < found; ++i) magnitudes[i] = std::abs(x[places[i]]);
  const float kth = kth_largest(std::span(magnitudes).first(found), k);
  std::size_t larger = 0, taken = 0;
  for (std::size_t i = 0; i < found; ++i) larger += std::abs(x[places[i]]) > kth ? 1 : 0;
  std::size_t equal = k - larger;
  for (std::size_t i = 0; i < found; ++i) {
    const float magnitude = std::abs(x[places[i]]);
    if (magnitude < kth || (magnitude == kth && equal == 0)) continue;
    if (magnitude == kth) --equal;
    places[taken++] = places[i];
  }
  return std::span(places).first(taken);
}

class TopK final : public Sparse {
 public:
  TopK(double density, double momentum, double warmup)
      : density_(density), momentum_(static_cast<float>(momentum)), warmup_(warmup) {}
  int memories() const override { return momentum_ > 0 ? 2 : 1; }
  std::size_t most_bytes(std::int64_t count) const override {
    const auto numbers = static_cast<std::size_t>(count);
    return kHeader + (numbers == 0 ? 0 : bytes_of_pairs(share_of(density_at(0), numbers)));
  }
  bool has_fixed_size() const override { return warmup_ == 0; }

 private:
  double density_at(std::int64_t step) const {
    constexpr double kFirst = 0.25;
    if (warmup_ == 0 || static_cast<double>(step) >= warmup_ || density_ >= kFirst) return density_;
    return kFirst * std::pow(density_ / kFirst, static_cast<double>(step) / warmup_);
  }
  Encoded encode_finite(std::span<const float> values, std::span<float* const> memory,
                        const CodecPlace& place, std::byte* body) const override {
    if (values.empty()) return {};
    thread_local Places places;
    float* const kept = memory[0];
    if (momentum_ > 0) {
      float* const velocity = memory[1];
      for (std::size_t i = 0; i < values.size(); ++i) {
        velocity[i] = momentum_ * velocity[i] + values[i];
      }
      add_values(velocity, kept, values.size());
    } else {
      add_values(values.data(), kept, values.size());
    }
    const std::span<const std::uint16_t> largest = largest_places(
        kept, values.size(), share_of(density_at(place.step), values.size()), places);
    if (momentum_ > 0) {
      for (const std::uint16_t one : largest) memory[1][one] = 0;
    }
    return put(kept, largest, body);
  }

  double density_;
  float momentum_;
  double warmup_;
};

class RandomK final : public Sparse {
 public:
  explicit RandomK(double density) : density_(density) {}
  std::size_t most_bytes(std::int64_t count) const override {
    const auto numbers = static_cast<std::size_t>(count);
    return kHeader + (numbers == 0 ? 0 : bytes_of_pairs(share_of(density_, numbers)));
  }
  bool has_fixed_size() const override { return true; }

 private:
  // R. W. Floyd's sampling ("A sample of brilliance", 1987).
  Encoded encode_finite(std::span<const float> values, std::span<float* const> memory,
                        const CodecPlace& place, std::byte* body) const override {
    if (values.empty()) return {};
    thread_local Places places;
    thread_local std::array<bool, kMost> taken;
    add_values(values.data(), memory[0], values.size());
    const std::size_t k = share_of(density_, values.size());
    std::size_t drawn = 0;
    for (std::size_t end = values.size() - k; end < values.size(); ++end) {
      const std::uint32_t bits = place.random.block(place.first + drawn)[0];
      const std::size_t one = uniform_below(bits, static_cast<std::uint32_t>(end + 1));
      const std::size_t free = taken[one] ? end : one;
      taken[free] = true;
      places[drawn++] = static_cast<std::uint16_t>(free);
    }
    std::sort(places.begin(), places.begin() + static_cast<std::ptrdiff_t>(k));
    const std::span<const std::uint16_t> all = std::span(places).first(k);
    for (const std::uint16_t one : all) taken[one] = false;
    return put(memory[0], all, body);
  }

  double density_;
};

// `density` > 0: the threshold is that of a sample.
class Threshold final : public Sparse {
 public:
  Threshold(double value, double density) : value_(static_cast<float>(value)), density_(density) {}
  std::size_t most_bytes(std::int64_t count) const override {
    return kHeader + static_cast<std::size_t>(count) * sizeof(float);
  }
  bool has_fixed_size() const override { return false; }

 private:
  static constexpr std::size_t kSample = 1024;

  float threshold_of(const float* x, std::size_t count) const {
    if (density_ == 0) return value_;
    std::array<float, kSample> sample;
    const std::size_t taken = std::min(kSample, count);
    for (std::size_t i = 0; i < taken; ++i) sample[i] = std::abs(x[i * count / taken]);
    return kth_largest(std::span(sample).first(taken), share_of(density_, taken));
  }
  Encoded encode_finite(std::span<const float> values, std::span<float* const> memory,
                        const CodecPlace&, std::byte* body) const override {
    if (values.empty()) return {};
    thread_local Places places;
    float* const kept = memory[0];
    const std::size_t count = values.size(), most = most_pairs(count);
    add_values(values.data(), kept, count);
    // Zeros need not be sent.
    const float threshold = std::max(threshold_of(kept, count), 1e-38f);
    const std::size_t found = find_magnitudes(kept, threshold, places.data(), most, count);
    if (found == most) return put_all(kept, count, body);
    return put(kept, std::span(places).first(found), body);
  }

  float value_;
  double density_;
};

}  // namespace

std::unique_ptr<Codec> make_topk(const CodecParameters& parameters) {
  return std::make_unique<TopK>(parameters.at("density"), parameters.at("momentum"),
                                parameters.at("warmup"));
}
std::unique_ptr<Codec> make_randomk(const CodecParameters& parameters) {
  return std::make_unique<RandomK>(parameters.at("density"));
}
std::unique_ptr<Codec> make_threshold(const CodecParameters& parameters) {
  return std::make_unique<Threshold>(parameters.at("value"), 0);
}
std::unique_ptr<Codec> make_adaptive(const CodecParameters& parameters) {
  return std::make_unique<Threshold>(0, parameters.at("density"));
}

}  // namespace concord::comm

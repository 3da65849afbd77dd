#include "concord/comm/codec_benchmark.h"

#include <algorithm>
#include <cmath>

#include "concord/base/clock.h"

namespace concord::comm {
namespace {

// The median of what `work` takes, each time after `prepare`.
template <typename Prepare, typename Work>
double median_seconds(double seconds, int& repetitions, Prepare prepare, Work work) {
  constexpr std::size_t kLeast = 3;
  std::vector<double> times;
  const double begin = now_seconds();
  while (times.size() < kLeast || now_seconds() - begin < seconds) {
    prepare();
    const double before = now_seconds();
    work(static_cast<std::int64_t>(times.size()));
    times.push_back(now_seconds() - before);
  }
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  repetitions = static_cast<int>(times.size());
  return *middle;
}

double relative_error(std::span<const float> values, std::span<const float> decoded) {
  double squares = 0, errors = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double error = double{decoded[i]} - double{values[i]};
    squares += double{values[i]} * double{values[i]};
    errors += error * error;
  }
  return squares == 0 ? 0 : std::sqrt(errors / squares);
}

class Bench {
 public:
  Bench(const Codec& codec, std::span<const float> values)
      : codec_(codec), values_(values), decoded_(values.size()) {
    kept_.assign(static_cast<std::size_t>(codec.memories()), std::vector<float>(values.size()));
    pointers_.resize(kept_.size());
    const std::size_t chunks = (values.size() + kChunk - 1) / kChunk;
    room_ = (codec.most_bytes(kCodecChunk) + 3) / 4 * 4;
    frames_.resize(chunks * room_);
    bytes_.resize(chunks);
  }

  // As before the first step.
  void forget() {
    for (std::vector<float>& kept : kept_) std::ranges::fill(kept, 0.0f);
  }
  void encode(std::int64_t step) {
    for (std::size_t chunk = 0; chunk < bytes_.size(); ++chunk) {
      for (std::size_t i = 0; i < kept_.size(); ++i)
        pointers_[i] = kept_[i].data() + chunk * kChunk;
      const CodecPlace place{
          {.seed = 1, .step = static_cast<std::uint32_t>(step)}, chunk * kChunk, step};
      bytes_[chunk] = codec_.encode(values_.subspan(chunk * kChunk, count(chunk)), pointers_, place,
                                    frames_.data() + chunk * room_);
    }
  }
  void decode() {
    for (std::size_t chunk = 0; chunk < bytes_.size(); ++chunk) {
      codec_.decode(std::span(frames_).subspan(chunk * room_, bytes_[chunk]), /*adds=*/false,
                    std::span(decoded_).subspan(chunk * kChunk, count(chunk)));
    }
  }
  std::size_t frame_bytes() const {
    std::size_t sum = 0;
    for (const std::size_t bytes : bytes_) sum += bytes;
    return sum;
  }
  std::span<const float> decoded() const { return decoded_; }

 private:
  static constexpr auto kChunk = static_cast<std::size_t>(kCodecChunk);
  std::size_t count(std::size_t chunk) const {
    return std::min(kChunk, values_.size() - chunk * kChunk);
  }

  const Codec& codec_;
  std::span<const float> values_;
  std::vector<float> decoded_;
  std::vector<std::vector<float>> kept_;
  std::vector<float*> pointers_;
  std::size_t room_ = 0;
  std::vector<std::byte> frames_;
  std::vector<std::size_t> bytes_;
};

}  // namespace

CodecBenchmark benchmark_codec(const Codec& codec, std::span<const float> values, double seconds) {
  CodecBenchmark result;
  Bench bench(codec, values);
  bench.encode(0);
  bench.decode();
  const auto given = static_cast<double>(values.size_bytes());
  result.frame_bytes = bench.frame_bytes();
  if (result.frame_bytes > 0) result.ratio = given / static_cast<double>(result.frame_bytes);
  result.relative_error = relative_error(values, bench.decoded());
  int encodings = 0, decodings = 0;
  result.encode_seconds = median_seconds(
      seconds, encodings, [&] { bench.forget(); },
      [&](std::int64_t step) { bench.encode(step + 1); });
  result.decode_seconds = median_seconds(
      seconds, decodings, [] {}, [&](std::int64_t) { bench.decode(); });
  result.repetitions = std::min(encodings, decodings);
  result.encode_bytes_per_second = given / result.encode_seconds;
  result.decode_bytes_per_second = given / result.decode_seconds;
  return result;
}

}  // namespace concord::comm

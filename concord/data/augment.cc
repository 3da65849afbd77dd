#include "concord/data/augment.h"

#include <algorithm>

#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/data/streams.h"

namespace concord::data {
namespace {

// Sets the square of side `side` around (y, x), as far as it lies within, to zero in every plane.
void cut_out(std::span<float> image, const Shape& shape, int side, std::int64_t y, std::int64_t x) {
  const std::int64_t height = shape[1], width = shape[2];
  const std::int64_t top = std::max<std::int64_t>(0, y - side / 2);
  const std::int64_t left = std::max<std::int64_t>(0, x - side / 2);
  const std::int64_t bottom = std::min(height, y - side / 2 + side);
  const std::int64_t right = std::min(width, x - side / 2 + side);
  for (std::int64_t c = 0; c < shape[0]; ++c) {
    for (std::int64_t row = top; row < bottom; ++row) {
      float* begin = image.data() + (c * height + row) * width;
      std::fill(begin + left, begin + right, 0.0f);
    }
  }
}

}  // namespace

Augmentation::Augmentation(const AugmentOptions& options, Normalization normalization,
                           Shape sample_shape, std::uint64_t seed)
    : options_(options),
      normalization_(std::move(normalization)),
      sample_shape_(std::move(sample_shape)),
      seed_(seed) {
  check_normalization(normalization_, sample_shape_);
  const auto& [padding, flip, cutout] = options_;
  if (padding < 0 || cutout < 0) {
    fail("augmentation with crop padding {} and cutout {}: expected 0 or more pixels", padding,
         cutout);
  }
  if (sample_shape_.rank() == 3) {
    const std::int64_t side = std::min(sample_shape_[1], sample_shape_[2]);
    if (padding > side || cutout > 2 * side) {
      fail("augmentation with crop padding {} and cutout {}: too large for images {}", padding,
           cutout, to_string(sample_shape_));
    }
  } else if (padding > 0 || flip || cutout > 0) {
    fail("crop, flip and cutout need images [C, H, W]: the samples are {}",
         to_string(sample_shape_));
  }
}

Augmentation Augmentation::none(Normalization normalization, Shape sample_shape) {
  return {{}, std::move(normalization), std::move(sample_shape), 0};
}

// A row of numbers, each with a mean of its own.
void Augmentation::normalize(std::span<const float> raw, std::span<float> result) const {
  if (normalization_.mean.empty()) {
    std::ranges::copy(raw, result.begin());
    return;
  }
  for (std::size_t i = 0; i < raw.size(); ++i) {
    result[i] = (raw[i] - normalization_.mean[i]) / normalization_.deviation[i];
  }
}

void Augmentation::apply(std::int64_t epoch, std::int64_t index, std::span<const float> raw,
                         std::span<float> result) const {
  // Of samples that are no images, dim 0 counts the channels and the rest is one row of pixels.
  const bool image = sample_shape_.rank() == 3;
  const std::int64_t channels = sample_shape_[0];
  const std::int64_t width = image ? sample_shape_[2] : sample_shape_.elements() / channels;
  const std::int64_t height = image ? sample_shape_[1] : 1;
  CONCORD_CHECK(raw.size() == result.size() &&
                result.size() == static_cast<std::size_t>(channels * height * width));
  if (sample_shape_.rank() == 1) return normalize(raw, result);

  const RandomStream stream{seed_, kAugmentStream, static_cast<std::uint32_t>(epoch)};
  const PhiloxBlock shift = stream.block(2 * static_cast<std::uint64_t>(index));
  const PhiloxBlock cut = stream.block(2 * static_cast<std::uint64_t>(index) + 1);
  const auto below = [](std::uint32_t bits, std::int64_t bound) {
    return static_cast<std::int64_t>(uniform_below(bits, static_cast<std::uint32_t>(bound)));
  };
  // Pixel (y, x) of the crop is pixel (y + down, x + right) of the image, or the padding around it.
  const std::int64_t padding = options_.crop_padding;
  const std::int64_t down = below(shift[0], 2 * padding + 1) - padding;
  const std::int64_t right = below(shift[1], 2 * padding + 1) - padding;
  const bool flip = options_.horizontal_flip && shift[2] >> 31 != 0;
  const std::int64_t begin = std::max<std::int64_t>(0, -right);
  const std::int64_t end = std::min(width, width - right);

  for (std::int64_t c = 0; c < channels; ++c) {
    const bool normalize = !normalization_.mean.empty();
    const float mean = normalize ? normalization_.mean[static_cast<std::size_t>(c)] : 0.0f;
    const float deviation =
        normalize ? normalization_.deviation[static_cast<std::size_t>(c)] : 1.0f;
    const float border = (0.0f - mean) / deviation;
    for (std::int64_t y = 0; y < height; ++y) {
      float* out = result.data() + (c * height + y) * width;
      const std::int64_t from = y + down;
      if (from < 0 || from >= height) {
        std::fill(out, out + width, border);
        continue;
      }
      const float* in = raw.data() + (c * height + from) * width;
      std::fill(out, out + begin, border);
      for (std::int64_t x = begin; x < end; ++x) out[x] = (in[x + right] - mean) / deviation;
      std::fill(out + end, out + width, border);
      if (flip) std::reverse(out, out + width);
    }
  }
  if (options_.cutout > 0) {
    cut_out(result, sample_shape_, options_.cutout, below(cut[0], height), below(cut[1], width));
  }
}

}  // namespace concord::data

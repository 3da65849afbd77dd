// Augmentation: the random changes made to a training sample, and normalization. What happens to a
// sample is a pure function of (seed, epoch, sample index), whichever thread or rank does it.
//
// In this order: crop at a random place of the image padded with zeros on each side, as in He,
// Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016, section 4.2; horizontal
// flip with probability 1/2; normalization; cutout of one square around a random pixel, set to zero
// (the mean), cut at the border, as in DeVries, Taylor, "Improved regularization of convolutional
// neural networks with cutout", 2017. Thread safety: const.
#pragma once

#include <cstdint>
#include <span>

#include "concord/data/normalization.h"
#include "concord/tensor/shape.h"

namespace concord::data {

// Zero or false: not done.
struct AugmentOptions {
  int crop_padding = 0;  // pixels added on each side before the crop
  bool horizontal_flip = false;
  int cutout = 0;  // side of the square in pixels
  bool operator==(const AugmentOptions&) const = default;
};

class Augmentation {
 public:
  // Throws Error when the options do not fit samples of `sample_shape`: crop, flip and cutout need
  // images [C, H, W].
  Augmentation(const AugmentOptions& options, Normalization normalization, Shape sample_shape,
               std::uint64_t seed);

  // Normalization alone, as evaluation needs it.
  static Augmentation none(Normalization normalization, Shape sample_shape);

  const Shape& sample_shape() const { return sample_shape_; }
  // Whether a result is the raw sample.
  bool is_none() const { return options_ == AugmentOptions() && normalization_.mean.empty(); }
  // From `raw` to `result`, of sample_shape().elements() floats each, which must not overlap.
  void apply(std::int64_t epoch, std::int64_t index, std::span<const float> raw,
             std::span<float> result) const;

 private:
  void normalize(std::span<const float> raw, std::span<float> result) const;

  AugmentOptions options_;
  Normalization normalization_;
  Shape sample_shape_;
  std::uint64_t seed_;
};

}  // namespace concord::data

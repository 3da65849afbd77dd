// Normalization of samples: (x - mean) / deviation, channel by channel. The channels of an image
// [C, H, W] are its C planes; those of a vector are its features.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "concord/data/dataset.h"

namespace concord::data {

// One number per channel, or none at all for no normalization.
struct Normalization {
  std::vector<float> mean;
  std::vector<float> deviation;  // standard deviation

  bool none() const { return mean.empty(); }
};

// Throws Error unless `normalization` is empty or fits samples of `sample_shape`, with positive and
// finite deviations.
void check_normalization(const Normalization& normalization, const Shape& sample_shape);

// Mean and standard deviation of each channel over the whole data set, or over `max_samples`
// samples spread evenly over it where it has more. A channel that does not vary gets deviation 1.
// The result does not depend on the number of compute threads, which share the work. Throws what
// read() throws.
Normalization measure_normalization(const Dataset& dataset, std::int64_t max_samples = 10000);

// The same of each number of the targets, over every sample. The targets must be values.
Normalization measure_target_normalization(const Dataset& dataset);

// The data set with its targets normalized, or as it is where `normalization` is none.
std::unique_ptr<Dataset> normalize_targets(std::unique_ptr<Dataset> dataset,
                                           const Normalization& normalization);

}  // namespace concord::data

// Made-up data for benchmarks and tests: standard normal features, and targets that have nothing to
// do with them; or windows of random tokens. Needs no file. A pure function of its options.
#pragma once

#include <cstdint>
#include <memory>

#include "concord/data/dataset.h"

namespace concord::data {

struct SyntheticOptions {
  SampleType sample_type = SampleType::kValues;
  Shape sample_shape = {3, 32, 32};  // of tokens: [length]
  std::int64_t size = 1024;
  TargetType target_type = TargetType::kClass;
  int classes = 10;             // kClass: uniformly distributed labels; of tokens: the vocabulary
  int target_width = 1;         // kValues: standard normal numbers
  bool binary_targets = false;  // kValues: each 0 or 1 in place of these
  std::uint64_t seed = 0;
  std::uint32_t split = 0;  // samples of different splits differ
};

// Every sample is a window, at a random place, of one long row of noise: reading is a copy, so that
// a benchmark measures training and not a random generator. Throws Error for sizes that are not
// positive.
std::unique_ptr<Dataset> open_synthetic(const SyntheticOptions& options);

}  // namespace concord::data

#include "concord/data/normalization.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <mutex>

#include "concord/base/error.h"
#include "concord/base/parallel.h"

namespace concord::data {
namespace {

// Samples are summed in blocks of this many, and the blocks in order, whatever the threads.
constexpr std::int64_t kBlock = 256;

// Count, mean and sum of squared deviations, merged pairwise. Source: Chan, Golub, LeVeque,
// "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
struct Moments {
  double count = 0;
  double mean = 0;
  double squares = 0;

  void merge(const Moments& other) {
    if (other.count == 0) return;
    const double total = count + other.count;
    const double delta = other.mean - mean;
    mean += delta * other.count / total;
    squares += other.squares + delta * delta * count * other.count / total;
    count = total;
  }
};

Moments moments_of(std::span<const float> values) {
  Moments result;
  result.count = static_cast<double>(values.size());
  for (const float value : values) result.mean += value;
  result.mean /= result.count;
  for (const float value : values) {
    result.squares += (value - result.mean) * (value - result.mean);
  }
  return result;
}

// A channel that does not vary is only shifted.
void append(const Moments& moments, Normalization& result) {
  const auto deviation = static_cast<float>(std::sqrt(moments.squares / moments.count));
  result.mean.push_back(static_cast<float>(moments.mean));
  result.deviation.push_back(deviation > 0 ? deviation : 1.0f);
}

}  // namespace

void check_normalization(const Normalization& normalization, const Shape& sample_shape) {
  const auto& [mean, deviation] = normalization;
  if (mean.empty() && deviation.empty()) return;
  const auto channels = static_cast<std::size_t>(sample_shape[0]);
  if (mean.size() != channels || deviation.size() != channels) {
    fail("normalization with {} means and {} deviations: expected {} of each for samples {}",
         mean.size(), deviation.size(), channels, to_string(sample_shape));
  }
  for (std::size_t c = 0; c < channels; ++c) {
    if (!std::isfinite(mean[c]) || !std::isfinite(deviation[c]) || deviation[c] <= 0) {
      fail(
          "normalization of channel {} by mean {} and deviation {}: expected finite numbers and a "
          "positive deviation",
          c, mean[c], deviation[c]);
    }
  }
}

Normalization measure_normalization(const Dataset& dataset, std::int64_t max_samples) {
  CONCORD_CHECK(max_samples > 0);
  const std::int64_t samples = std::min(dataset.size(), max_samples);
  const std::int64_t blocks = (samples + kBlock - 1) / kBlock;
  const auto elements = static_cast<std::size_t>(dataset.sample_shape().elements());
  const auto channels = static_cast<std::size_t>(dataset.sample_shape()[0]);
  const std::size_t plane = elements / channels;

  std::vector<Moments> partial(static_cast<std::size_t>(blocks) * channels);
  std::exception_ptr error;
  std::mutex error_mutex;
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    try {
      std::vector<float> sample(elements);
      for (std::int64_t i = begin * kBlock; i < std::min(samples, end * kBlock); ++i) {
        dataset.read(i * dataset.size() / samples, sample);
        Moments* moments = partial.data() + static_cast<std::size_t>(i / kBlock) * channels;
        for (std::size_t c = 0; c < channels; ++c) {
          moments[c].merge(moments_of(std::span(sample).subspan(c * plane, plane)));
        }
      }
    } catch (...) {
      const std::lock_guard lock(error_mutex);
      error = std::current_exception();
    }
  });
  if (error) std::rethrow_exception(error);

  Normalization result;
  for (std::size_t c = 0; c < channels; ++c) {
    Moments total;
    for (std::size_t block = c; block < partial.size(); block += channels) {
      total.merge(partial[block]);
    }
    append(total, result);
  }
  return result;
}

Normalization measure_target_normalization(const Dataset& dataset) {
  CONCORD_CHECK(dataset.target_type() == TargetType::kValues);
  const auto width = static_cast<std::size_t>(dataset.target_width());
  const std::vector<float>& values = dataset.targets().values;
  Normalization result;
  std::vector<float> column(values.size() / width);
  for (std::size_t i = 0; i < width; ++i) {
    for (std::size_t row = 0; row < column.size(); ++row) column[row] = values[row * width + i];
    append(moments_of(column), result);
  }
  return result;
}

std::unique_ptr<Dataset> normalize_targets(std::unique_ptr<Dataset> dataset,
                                           const Normalization& normalization) {
  if (normalization.none()) return dataset;
  check_normalization(normalization, {dataset->target_width()});
  Targets targets = dataset->targets();
  const std::size_t width = normalization.mean.size();
  for (std::size_t i = 0; i < targets.values.size(); ++i) {
    targets.values[i] =
        (targets.values[i] - normalization.mean[i % width]) / normalization.deviation[i % width];
  }
  return with_targets(std::move(dataset), std::move(targets));
}

}  // namespace concord::data

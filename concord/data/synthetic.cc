#include "concord/data/synthetic.h"

#include <algorithm>

#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/data/streams.h"
#include "concord/data/token_windows.h"

namespace concord::data {
namespace {

constexpr std::uint32_t kPlaces = 1 << 20;
constexpr std::int64_t kMaxElements = std::int64_t{1} << 28;

std::vector<float> normal_row(std::size_t count, const RandomStream& stream) {
  std::vector<float> row(count);
  for (std::size_t i = 0; i < count; ++i) {
    const PhiloxBlock block = stream.block(i / 2);
    row[i] = i % 2 == 0 ? normal01(block[0], block[1]) : normal01(block[2], block[3]);
  }
  return row;
}

class Synthetic final : public Dataset {
 public:
  Synthetic(const SyntheticOptions& options, Targets targets)
      : Dataset(options.sample_shape, std::move(targets)),
        places_{options.seed, kSyntheticOffsetStream, options.split},
        noise_(normal_row(kPlaces + static_cast<std::size_t>(options.sample_shape.elements()),
                          {options.seed, kSyntheticNoiseStream, options.split})) {}

  void read(std::int64_t index, std::span<float> features) const override {
    CONCORD_CHECK(index >= 0 && index < size(), "{} of {}", index, size());
    const std::uint32_t place =
        uniform_below(places_.bits(static_cast<std::uint64_t>(index)), kPlaces);
    std::copy_n(noise_.data() + place, features.size(), features.data());
  }

 private:
  RandomStream places_;
  std::vector<float> noise_;
};

Targets synthetic_targets(const SyntheticOptions& options) {
  const auto size = static_cast<std::size_t>(options.size);
  Targets targets;
  targets.type = options.target_type;
  if (options.target_type == TargetType::kValues) {
    targets.width = options.target_width;
    targets.values = normal_row(size * static_cast<std::size_t>(options.target_width),
                                {options.seed, kSyntheticValueStream, options.split});
    if (options.binary_targets) {
      for (float& value : targets.values) value = value > 0 ? 1.0f : 0.0f;
    }
    return targets;
  }
  const RandomStream stream{options.seed, kSyntheticLabelStream, options.split};
  targets.classes = options.classes;
  for (std::size_t i = 0; i < size; ++i) {
    targets.labels.push_back(static_cast<std::int32_t>(
        uniform_below(stream.bits(i), static_cast<std::uint32_t>(options.classes))));
  }
  return targets;
}

std::unique_ptr<Dataset> random_windows(const SyntheticOptions& options) {
  const RandomStream stream{options.seed, kSyntheticLabelStream, options.split};
  const auto vocabulary = static_cast<std::uint32_t>(options.classes);
  std::vector<std::int32_t> row(
      static_cast<std::size_t>(options.size * options.sample_shape[0] + 1));
  for (std::size_t i = 0; i < row.size(); ++i) {
    row[i] = static_cast<std::int32_t>(uniform_below(stream.bits(i), vocabulary));
  }
  TokenStream tokens(options.classes);
  tokens.append(row);
  return token_windows(std::move(tokens), options.sample_shape[0], options.classes,
                       "synthetic data");
}

}  // namespace

std::unique_ptr<Dataset> open_synthetic(const SyntheticOptions& options) {
  if (options.size <= 0 || options.size > kMaxElements) {
    fail("synthetic data of {} samples: expected 1 to {}", options.size, kMaxElements);
  }
  std::int64_t elements = 1;
  for (const std::int64_t dim : options.sample_shape) {
    if (dim <= 0 || dim > kMaxElements / elements) {
      fail("synthetic samples of shape {}: expected positive extents and at most {} numbers",
           to_string(options.sample_shape), kMaxElements);
    }
    elements *= dim;
  }
  if (options.sample_shape.rank() == 0) fail("synthetic samples need a shape, such as [3, 32, 32]");
  const int targets =
      options.target_type == TargetType::kClass ? options.classes : options.target_width;
  if (targets <= 0 || targets > kMaxElements / options.size) {
    fail("synthetic data with {} {}: expected a positive number", targets,
         options.target_type == TargetType::kClass ? "classes" : "target values per sample");
  }
  if (options.sample_type == SampleType::kTokens) {
    if (options.sample_shape.rank() != 1 || elements > kMaxElements / options.size) {
      fail("{} synthetic samples of {} tokens: expected [length], and at most {} tokens in all",
           options.size, to_string(options.sample_shape), kMaxElements);
    }
    return random_windows(options);
  }
  return std::make_unique<Synthetic>(options, synthetic_targets(options));
}

}  // namespace concord::data

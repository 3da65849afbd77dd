#include "concord/data/dataset.h"

#include <algorithm>

#include "concord/base/error.h"

namespace concord::data {
namespace {

constexpr std::int64_t kMaxClasses = std::int64_t{1} << 20;

class ByteDataset final : public Dataset {
 public:
  ByteDataset(Shape sample_shape, std::vector<std::uint8_t> pixels, Targets targets)
      : Dataset(std::move(sample_shape), std::move(targets)), pixels_(std::move(pixels)) {
    CONCORD_CHECK(static_cast<std::int64_t>(pixels_.size()) ==
                  size() * this->sample_shape().elements());
  }

  void read(std::int64_t index, std::span<float> features) const override {
    CONCORD_CHECK(index >= 0 && index < size(), "{} of {}", index, size());
    const std::uint8_t* pixels = pixels_.data() + static_cast<std::size_t>(index) * features.size();
    for (std::size_t i = 0; i < features.size(); ++i) {
      features[i] = static_cast<float>(pixels[i]) / 255.0f;
    }
  }

  bool scaled_bytes() const override { return true; }

 private:
  std::vector<std::uint8_t> pixels_;
};

class FloatDataset final : public Dataset {
 public:
  FloatDataset(Shape sample_shape, std::vector<float> features, Targets targets)
      : Dataset(std::move(sample_shape), std::move(targets)), features_(std::move(features)) {
    CONCORD_CHECK(static_cast<std::int64_t>(features_.size()) ==
                  size() * this->sample_shape().elements());
  }

  void read(std::int64_t index, std::span<float> features) const override {
    CONCORD_CHECK(index >= 0 && index < size(), "{} of {}", index, size());
    std::copy_n(features_.data() + static_cast<std::size_t>(index) * features.size(),
                features.size(), features.data());
  }

 private:
  std::vector<float> features_;
};

Targets first_targets(const Targets& targets, std::int64_t count) {
  Targets result = targets;
  if (targets.type == TargetType::kClass) {
    result.labels.resize(static_cast<std::size_t>(count));
  } else {
    result.values.resize(static_cast<std::size_t>(count * targets.width));
  }
  return result;
}

class WithTargets final : public Dataset {
 public:
  WithTargets(std::unique_ptr<Dataset> whole, Targets targets)
      : Dataset(whole->sample_shape(), std::move(targets)), whole_(std::move(whole)) {
    CONCORD_CHECK(size() <= whole_->size());
  }

  void read(std::int64_t index, std::span<float> features) const override {
    CONCORD_CHECK(index >= 0 && index < size(), "{} of {}", index, size());
    whole_->read(index, features);
  }
  bool scaled_bytes() const override { return whole_->scaled_bytes(); }

 private:
  std::unique_ptr<Dataset> whole_;
};

class FirstSequences final : public Dataset {
 public:
  FirstSequences(std::unique_ptr<Dataset> whole, std::int64_t count)
      : Dataset(count, whole->sample_shape()[0], whole->classes()), whole_(std::move(whole)) {}

  void read_tokens(std::int64_t index, std::span<std::int32_t> tokens,
                   std::span<std::int32_t> labels) const override {
    CONCORD_CHECK(index >= 0 && index < size(), "{} of {}", index, size());
    whole_->read_tokens(index, tokens, labels);
  }

 private:
  std::unique_ptr<Dataset> whole_;
};

}  // namespace

std::int64_t Targets::size() const {
  if (type == TargetType::kClass) return static_cast<std::int64_t>(labels.size());
  return static_cast<std::int64_t>(values.size()) / width;
}

int count_classes(std::span<const std::int64_t> labels, std::string_view source) {
  std::int64_t classes = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= kMaxClasses) {
      fail("{}: the label of sample {} is {}: expected a class from 0 to {}", source, i, labels[i],
           kMaxClasses - 1);
    }
    classes = std::max(classes, labels[i] + 1);
  }
  return static_cast<int>(classes);
}

Targets class_targets(std::span<const std::int64_t> labels, int classes, std::string_view source,
                      std::vector<std::string> class_names) {
  if (!class_names.empty() && class_names.size() != static_cast<std::size_t>(classes)) {
    fail("{}: {} class names given for {} classes", source, class_names.size(), classes);
  }
  Targets targets;
  targets.classes = classes;
  targets.class_names = std::move(class_names);
  targets.labels.reserve(labels.size());
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= classes) {
      fail("{}: the label of sample {} is {}: expected 0 to {} ({} classes)", source, i, labels[i],
           classes - 1, classes);
    }
    targets.labels.push_back(static_cast<std::int32_t>(labels[i]));
  }
  return targets;
}

Dataset::Dataset(Shape sample_shape, Targets targets)
    : sample_shape_(std::move(sample_shape)), targets_(std::move(targets)), size_(targets_.size()) {
  CONCORD_CHECK(size_ > 0 && sample_shape_.elements() > 0 && sample_shape_.rank() > 0);
}

Dataset::Dataset(std::int64_t size, std::int64_t length, int vocabulary)
    : sample_type_(SampleType::kTokens), sample_shape_{length}, size_(size) {
  CONCORD_CHECK(size > 0 && length > 0 && vocabulary > 0);
  targets_.classes = vocabulary;
}

void Dataset::read(std::int64_t, std::span<float>) const {
  CONCORD_CHECK(false, "samples of tokens have no values");
}

void Dataset::read_tokens(std::int64_t, std::span<std::int32_t>, std::span<std::int32_t>) const {
  CONCORD_CHECK(false, "samples of values have no tokens");
}

std::int32_t Dataset::label(std::int64_t index) const {
  CONCORD_CHECK(target_type() == TargetType::kClass && sample_type_ == SampleType::kValues);
  CONCORD_CHECK(index >= 0 && index < size());
  return targets_.labels[static_cast<std::size_t>(index)];
}

void Dataset::read_target(std::int64_t index, std::span<float> target) const {
  CONCORD_CHECK(target_type() == TargetType::kValues && index >= 0 && index < size());
  const std::size_t width = static_cast<std::size_t>(target_width());
  CONCORD_CHECK(target.size() == width);
  std::copy_n(targets_.values.data() + static_cast<std::size_t>(index) * width, width,
              target.data());
}

std::unique_ptr<Dataset> byte_dataset(Shape sample_shape, std::vector<std::uint8_t> pixels,
                                      Targets targets) {
  return std::make_unique<ByteDataset>(std::move(sample_shape), std::move(pixels),
                                       std::move(targets));
}

std::unique_ptr<Dataset> float_dataset(Shape sample_shape, std::vector<float> features,
                                       Targets targets) {
  return std::make_unique<FloatDataset>(std::move(sample_shape), std::move(features),
                                        std::move(targets));
}

std::unique_ptr<Dataset> first_samples(std::unique_ptr<Dataset> dataset, std::int64_t count) {
  if (count <= 0) fail("asked for the first {} samples: expected a positive number", count);
  if (count >= dataset->size()) return dataset;
  if (dataset->sample_type() == SampleType::kTokens) {
    return std::make_unique<FirstSequences>(std::move(dataset), count);
  }
  Targets targets = first_targets(dataset->targets(), count);
  return with_targets(std::move(dataset), std::move(targets));
}

std::unique_ptr<Dataset> with_targets(std::unique_ptr<Dataset> dataset, Targets targets) {
  return std::make_unique<WithTargets>(std::move(dataset), std::move(targets));
}

}  // namespace concord::data

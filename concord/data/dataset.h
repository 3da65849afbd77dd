// Dataset: numbered samples and what is to be predicted from each.
// A sample is a row of floats in row-major order: an image [C, H, W] with values in [0, 1], or a
// vector [features]; or a sequence of tokens [length]. Its target is a class label, one label for
// each token, or a row of numbers (regression).
// Targets are always in memory; features may be read or decoded on demand.
// Thread safety: a data set does not change, so every const member may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "concord/tensor/shape.h"

namespace concord::data {

enum class SampleType { kValues, kTokens };

enum class TargetType {
  kClass,   // one label in [0, classes)
  kValues,  // `width` numbers
};

// The targets of every sample.
struct Targets {
  TargetType type = TargetType::kClass;
  std::vector<std::int32_t> labels;      // kClass: [size]
  int classes = 0;                       // kClass
  std::vector<std::string> class_names;  // kClass: [classes], or empty where the data names none
  std::vector<float> values;             // kValues: [size, width]
  int width = 0;                         // kValues

  std::int64_t size() const;
};

// 1 + the largest label. Throws Error naming `source` and the sample for a negative label or one
// too large to be a class (2^20 and above).
int count_classes(std::span<const std::int64_t> labels, std::string_view source);

// Class targets from labels read from `source` (a file name). Throws Error naming the source, the
// sample, its label and the allowed range unless every label lies in [0, classes), or unless there
// is one name per class or none.
Targets class_targets(std::span<const std::int64_t> labels, int classes, std::string_view source,
                      std::vector<std::string> class_names = {});

class Dataset {
 public:
  virtual ~Dataset() = default;

  std::int64_t size() const { return size_; }
  SampleType sample_type() const { return sample_type_; }
  const Shape& sample_shape() const { return sample_shape_; }
  TargetType target_type() const { return targets_.type; }
  // Number of classes; 0 unless the targets are classes. Of tokens: the vocabulary.
  int classes() const { return targets_.classes; }
  // Numbers in each target; 0 unless the targets are values.
  int target_width() const { return targets_.width; }
  const std::vector<std::string>& class_names() const { return targets_.class_names; }
  const Targets& targets() const { return targets_; }
  // Whether the samples are bytes, which read() scales to [0, 1].
  virtual bool scaled_bytes() const { return false; }

  // Labels of a sample: 1, or one for each of its tokens.
  std::int64_t labels_per_sample() const {
    return sample_type_ == SampleType::kTokens ? sample_shape_.elements() : 1;
  }

  // Writes sample `index` to `features`, which holds sample_shape().elements() floats. Throws Error
  // naming the file when a sample that is decoded on demand is corrupt. For samples of values.
  virtual void read(std::int64_t index, std::span<float> features) const;
  // Writes the tokens of sample `index` and the label of each. For samples of tokens.
  virtual void read_tokens(std::int64_t index, std::span<std::int32_t> tokens,
                           std::span<std::int32_t> labels) const;
  // The class of sample `index`, which is of values.
  std::int32_t label(std::int64_t index) const;
  // Writes the target_width() numbers to be predicted from sample `index`.
  void read_target(std::int64_t index, std::span<float> target) const;

 protected:
  // Samples of values.
  Dataset(Shape sample_shape, Targets targets);
  // `size` samples of `length` tokens out of `vocabulary`.
  Dataset(std::int64_t size, std::int64_t length, int vocabulary);

 private:
  SampleType sample_type_ = SampleType::kValues;
  Shape sample_shape_;
  Targets targets_;
  std::int64_t size_;
};

// Images kept as bytes [size, C, H, W]; read() gives byte / 255.
std::unique_ptr<Dataset> byte_dataset(Shape sample_shape, std::vector<std::uint8_t> pixels,
                                      Targets targets);

// Samples kept as floats [size, sample shape].
std::unique_ptr<Dataset> float_dataset(Shape sample_shape, std::vector<float> features,
                                       Targets targets);

// The first samples of `dataset` with `targets` in place of theirs, one for each.
std::unique_ptr<Dataset> with_targets(std::unique_ptr<Dataset> dataset, Targets targets);

// The first `count` samples of `dataset`, or all of them where it has fewer.
std::unique_ptr<Dataset> first_samples(std::unique_ptr<Dataset> dataset, std::int64_t count);

}  // namespace concord::data

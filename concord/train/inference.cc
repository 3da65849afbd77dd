#include "concord/train/inference.h"

#include <algorithm>
#include <cmath>

#include "concord/base/clock.h"
#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/data/image.h"
#include "concord/data/npy.h"
#include "concord/train/kernel_cache.h"
#include "concord/train/weights_hash.h"

namespace concord::train {
namespace {

constexpr std::size_t kMostInputBytes = std::size_t{1} << 30;

bool is_npy(const std::filesystem::path& path) { return path.extension() == ".npy"; }

// The samples of a file, not yet normalized: one image, or the rows of an array.
std::vector<float> read_samples(const std::filesystem::path& path, const Shape& sample) {
  const std::string bytes = read_file(path, kMostInputBytes);
  if (is_npy(path)) {
    const data::NpyArray array = data::parse_npy(bytes, path.string());
    std::vector<float> values = data::npy_floats(array, path.string());
    if (values.empty() || values.size() % static_cast<std::size_t>(sample.elements()) != 0) {
      fail("{} holds {} numbers; expected whole samples of {}", path.string(), values.size(),
           to_string(sample));
    }
    if (array.type == data::NpyType::kU1 && sample.rank() == 3) {
      for (float& value : values) value /= 255.0f;
    }
    return values;
  }
  if (sample.rank() != 3 || sample[1] != sample[2] || (sample[0] != 1 && sample[0] != 3)) {
    fail("{}: the model takes samples of {}, not square images; give a .npy file", path.string(),
         to_string(sample));
  }
  const auto side = static_cast<int>(sample[1]);
  const data::Image image = data::decode_image(bytes, path.string(), side);
  std::vector<float> planes(static_cast<std::size_t>(3 * side * side));
  data::resize_center_square(image, side, planes);
  if (sample[0] == 3) return planes;
  const std::size_t area = planes.size() / 3;
  std::vector<float> grey(area);  // luma of ITU-R BT.601; a grey image stays as it is
  for (std::size_t i = 0; i < area; ++i) {
    grey[i] = 0.299f * planes[i] + 0.587f * planes[area + i] + 0.114f * planes[2 * area + i];
  }
  return grey;
}

std::vector<double> softmax(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> values;
  double sum = 0;
  for (const float logit : logits)
    sum += values.emplace_back(std::exp(static_cast<double>(logit) - largest));
  for (double& value : values) value /= sum;
  return values;
}

}  // namespace

Evaluation evaluate_test_set(Job& job) {
  const double start = now_seconds();
  const std::unique_ptr<data::Loader> loader = job.test_loader();
  StepResult sum;
  while (loader->has_next()) {
    const StepResult part = job.engine->evaluate(samples_of(loader->next()));
    sum.loss += part.loss;
    sum.correct += part.correct;
  }
  Evaluation evaluation{.samples = job.test_set->size()};
  evaluation.loss = sum.loss / static_cast<double>(evaluation.samples);
  if (job.classifies()) evaluation.accuracy = sum.correct / static_cast<double>(evaluation.samples);
  evaluation.seconds = now_seconds() - start;
  return evaluation;
}

std::string hash_of_weights(const Engine& engine) {
  std::vector<OwnedTensor> tensors;
  std::vector<formats::NamedTensor> named;
  for (const StateStore::Entry& entry : engine.states().entries()) {
    if (entry.role != State::Role::kParameter) continue;
    tensors.push_back(engine.states().read(entry));
    named.push_back({entry.name, entry.type, {tensors.back().view().data, entry.type.bytes()}});
  }
  return weights_hash(named);
}

KernelChoices choices_of(const Checkpoint& checkpoint) {
  const auto found = checkpoint.info.state.find("kernel_choices");
  if (found == checkpoint.info.state.end()) return {};
  return parse_kernel_choices(found->dump(), checkpoint.directory.string());
}

Summary evaluate(const Config& config, const std::filesystem::path& path) {
  const Checkpoint checkpoint = load_checkpoint(path);
  Job job = open_job(config, choices_of(checkpoint));
  load_weights(*job.engine, checkpoint.weights, checkpoint.directory.string());
  const Evaluation evaluation = evaluate_test_set(job);
  return {.step = checkpoint.info.step,
          .epoch = checkpoint.info.epoch,
          .loss = evaluation.loss,
          .accuracy = evaluation.accuracy,
          .samples_per_second = static_cast<double>(evaluation.samples) / evaluation.seconds,
          .seconds = evaluation.seconds,
          .peak_rss_bytes = peak_rss_bytes(),
          .weights_hash = hash_of_weights(*job.engine)};
}

std::vector<Prediction> predict(const Config& config, const std::filesystem::path& path,
                                const std::vector<std::filesystem::path>& files) {
  const Checkpoint checkpoint = load_checkpoint(path);
  Job job = open_job(config, choices_of(checkpoint));
  load_weights(*job.engine, checkpoint.weights, checkpoint.directory.string());
  const Shape& sample = job.train_set->sample_shape();
  const auto elements = static_cast<std::size_t>(sample.elements());
  const auto normalize = data::Augmentation::none(job.normalization, sample);
  const std::vector<std::string>& names = job.train_set->class_names();

  std::vector<Prediction> predictions;
  std::vector<float> features(elements);
  for (const std::filesystem::path& file : files) {
    const std::vector<float> raw = read_samples(file, sample);
    for (std::size_t begin = 0; begin < raw.size(); begin += elements) {
      normalize.apply(0, 0, std::span(raw).subspan(begin, elements), features);
      const int outputs =
          job.classifies() ? job.train_set->classes() : job.train_set->target_width();
      std::vector<float> logits(static_cast<std::size_t>(outputs));
      job.engine->predict({.count = 1, .features = features}, logits);
      Prediction prediction{.file = file.string()};
      if (job.classifies()) {
        prediction.values = softmax(logits);
        prediction.label =
            static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
        const auto label = static_cast<std::size_t>(prediction.label);
        prediction.class_name = names.empty() ? std::to_string(label) : names[label];
      } else {
        prediction.values.assign(logits.begin(), logits.end());
      }
      predictions.push_back(std::move(prediction));
    }
  }
  return predictions;
}

}  // namespace concord::train

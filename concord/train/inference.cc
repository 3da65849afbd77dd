#include "concord/train/inference.h"

#include <algorithm>
#include <cmath>
#include <map>

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

// One sample, or an array of them.
std::vector<float> read_array(const std::string& bytes, const std::string& source,
                              const data::Task& task) {
  const data::NpyArray array = data::parse_npy(bytes, source);
  if (array.shape != task.sample && data::npy_sample_shape(array.shape, source) != task.sample) {
    fail("{} is {}; expected a sample {}, or an array of such samples", source,
         to_string(array.shape), to_string(task.sample));
  }
  std::vector<float> values = data::npy_floats(array, source);
  if (array.type == data::NpyType::kU1 && task.scaled_bytes) {
    for (float& value : values) value /= 255.0f;
  }
  return values;
}

std::vector<float> read_image(const std::string& bytes, const std::string& source,
                              const data::Task& task) {
  const Shape& sample = task.sample;
  if (!task.scaled_bytes || sample.rank() != 3 || sample[1] != sample[2] ||
      (sample[0] != 1 && sample[0] != 3)) {
    fail("{}: the model has learned from samples of {}, not from square images; give a .npy file",
         source, to_string(sample));
  }
  const auto side = static_cast<int>(sample[1]);
  const data::Image image = data::decode_image(bytes, source, side);
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

// The samples of a file, not yet normalized: one image, or the rows of an array or a table.
std::vector<float> read_samples(const std::filesystem::path& path, const data::Task& task) {
  const std::string bytes = read_file(path, kMostInputBytes);
  if (path.extension() == ".npy") return read_array(bytes, path.string(), task);
  if (task.table) return data::parse_csv_features(bytes, *task.table, path.string());
  return read_image(bytes, path.string(), task);
}

// What the model's answer to one sample means.
Prediction interpret(const Config& config, const data::Task& task, std::span<const float> output,
                     std::string file) {
  Prediction prediction{.file = std::move(file)};
  if (task.target == data::TargetType::kClass) {
    prediction.values = softmax(output);
    const auto label =
        static_cast<std::size_t>(std::max_element(output.begin(), output.end()) - output.begin());
    prediction.label = static_cast<int>(label);
    prediction.class_name =
        task.class_names.empty() ? std::to_string(label) : task.class_names[label];
    return prediction;
  }
  prediction.values.assign(output.begin(), output.end());
  if (config.model.loss == "bce") {
    for (double& logit : prediction.values) logit = 1 / (1 + std::exp(-logit));
  }
  if (task.table) {
    for (const data::CsvColumn& column : task.table->columns) {
      if (column.role == data::CsvColumn::Role::kValue) prediction.names.push_back(column.name);
    }
  }
  if (task.targets.none()) return prediction;
  for (std::size_t i = 0; i < prediction.values.size(); ++i) {
    prediction.values[i] = prediction.values[i] * task.targets.deviation[i] + task.targets.mean[i];
  }
  return prediction;
}

}  // namespace

std::vector<double> softmax(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> values;
  double sum = 0;
  for (const float logit : logits)
    sum += values.emplace_back(std::exp(static_cast<double>(logit) - largest));
  for (double& value : values) value /= sum;
  return values;
}

std::optional<Evaluation> evaluate_test_set(Job& job, data::Loader& loader,
                                            const std::function<bool()>& stop) {
  const double start = now_seconds();
  StepResult sum;
  while (loader.has_next()) {
    if (stop()) return std::nullopt;
    const data::Batch& batch = loader.next();
    const StepResult part = job.engine->evaluate(samples_of(batch), batch.step_count);
    sum.loss += part.loss;
    sum.correct += part.correct;
  }
  Evaluation evaluation{.samples = job.test_set->size()};
  evaluation.loss = sum.loss / static_cast<double>(evaluation.samples);
  if (job.has_accuracy())
    evaluation.accuracy = sum.correct / static_cast<double>(evaluation.samples);
  evaluation.seconds = now_seconds() - start;
  return evaluation;
}

std::string hash_of_weights(const Engine& engine) {
  std::map<std::string, const StateStore::Entry*> parameters;
  for (const StateStore::Entry& entry : engine.states().entries()) {
    if (entry.role == State::Role::kParameter) parameters.emplace(entry.name, &entry);
  }
  WeightsHash hash;
  for (const auto& [name, entry] : parameters) {
    const StateStore::Entry* average = average_of(engine.states(), *entry);
    const OwnedTensor tensor = engine.states().read(average == nullptr ? *entry : *average);
    hash.add(name, entry->type, {tensor.view().data, entry->type.bytes()});
  }
  return hash.hex();
}

data::Task task_of(const Checkpoint& checkpoint) {
  const std::string source = (checkpoint.directory / kManifestFile).string();
  const auto found = checkpoint.info.state.find("task");
  if (found == checkpoint.info.state.end()) fail("{} does not say what its model does", source);
  return data::parse_task(*found, source);
}

KernelChoices choices_of(const Checkpoint& checkpoint) {
  const auto found = checkpoint.info.state.find("kernel_choices");
  if (found == checkpoint.info.state.end()) return {};
  return parse_kernel_choices(found->dump(), checkpoint.directory.string());
}

Config config_of(const Checkpoint& checkpoint) {
  const auto text = checkpoint.info.state.find("config");
  if (text == checkpoint.info.state.end() || !text->is_string()) {
    fail("checkpoint {} does not hold the configuration of its run", checkpoint.directory.string());
  }
  return parse_config(text->get<std::string>(), (checkpoint.directory / kManifestFile).string());
}

Summary evaluate(const Config& config, const std::filesystem::path& path) {
  const Checkpoint checkpoint = load_checkpoint(path);
  check_same_model(config_of(checkpoint), config);
  Job job = open_evaluation(config, task_of(checkpoint), choices_of(checkpoint));
  load_weights(job.engine->states(), checkpoint.weights, checkpoint.directory.string());
  const Evaluation evaluation = *evaluate_test_set(job, *job.test_loader());
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
  check_same_model(config_of(checkpoint), config);
  const data::Task task = task_of(checkpoint);
  if (task.sample_type == data::SampleType::kTokens) {
    fail("{} holds a model of tokens, not of values: {}", checkpoint.directory.string(),
         !task.tokenizer ? "nor can it be given text, for it has not learned from any (data.kind)"
         : task.mask     ? "give it a text with tokens to fill in (--fill)"
                         : "give it the beginning of a text (--prompt)");
  }
  const auto elements = static_cast<std::size_t>(task.sample.elements());
  const auto outputs = static_cast<std::size_t>(task.outputs);

  std::vector<float> samples;
  std::vector<std::string> sources;  // of each sample
  for (const std::filesystem::path& file : files) {
    const std::vector<float> read = read_samples(file, task);
    samples.insert(samples.end(), read.begin(), read.end());
    sources.resize(samples.size() / elements, file.string());
  }

  const auto count = static_cast<std::int64_t>(sources.size());
  const std::int64_t batch = std::min(count, config.train.batch);
  const auto engine = make_predictor(config, task, batch, choices_of(checkpoint));
  load_weights(engine->states(), checkpoint.weights, checkpoint.directory.string());
  const auto normalize = data::Augmentation::none(task.features, task.sample);

  std::vector<Prediction> predictions;
  std::vector<float> features(static_cast<std::size_t>(batch) * elements);
  std::vector<float> answers(static_cast<std::size_t>(batch) * outputs);
  for (std::int64_t first = 0; first < count; first += batch) {
    const auto rows = static_cast<std::size_t>(std::min(batch, count - first));
    const auto begin = static_cast<std::size_t>(first);
    for (std::size_t i = 0; i < rows; ++i) {
      normalize.apply(0, 0, std::span(samples).subspan((begin + i) * elements, elements),
                      std::span(features).subspan(i * elements, elements));
    }
    engine->predict({.count = static_cast<std::int64_t>(rows),
                     .features = std::span(features).first(rows * elements)},
                    answers);
    for (std::size_t i = 0; i < rows; ++i) {
      predictions.push_back(interpret(
          config, task, std::span(answers).subspan(i * outputs, outputs), sources[begin + i]));
    }
  }
  return predictions;
}

}  // namespace concord::train

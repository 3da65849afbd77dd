#include "concord/train/job.h"

#include <algorithm>

#include "concord/base/error.h"
#include "concord/base/parallel.h"
#include "concord/base/text.h"
#include "concord/nn/step.h"
#include "concord/train/kernel_cache.h"

namespace concord::train {
namespace {

data::DataOptions data_options(const Config& config) {
  const DataConfig& from = config.data;
  data::DataOptions to;
  to.kind = from.kind;
  to.directory = from.dir.empty() ? "." : from.dir;
  to.train = from.train_file.empty() ? from.train_features : from.train_file;
  to.test = from.test_file.empty() ? from.test_features : from.test_file;
  to.train_targets = from.train_labels;
  to.test_targets = from.test_labels;
  to.target = config.model.loss == "mse" ? "values" : "class";
  to.limit_train = from.limit_train;
  to.limit_test = from.limit_test;
  to.image_size = static_cast<int>(from.image_size);
  to.csv_header = from.has_header;
  if (!from.target.empty()) to.csv_targets = {from.target};
  to.csv_categorical = from.categorical;
  to.synthetic_shape = from.shape;
  to.synthetic_train_size = from.samples;
  to.synthetic_test_size = std::max<std::int64_t>(1, from.samples / 4);
  to.synthetic_target_width = static_cast<int>(std::max<std::int64_t>(1, from.targets));
  if (from.kind == "synthetic" && config.model.loss != "mse")
    to.classes = static_cast<int>(from.classes);
  to.normalize = from.normalize;
  to.mean.assign(from.mean.begin(), from.mean.end());
  to.deviation.assign(from.std.begin(), from.std.end());
  to.augment = {.crop_padding = static_cast<int>(from.crop_padding),
                .horizontal_flip = from.horizontal_flip,
                .cutout = static_cast<int>(from.cutout)};
  return to;
}

nn::StepOptions step_options(const Job& job) {
  const Config& from = job.config;
  const bool classes = job.classifies();
  return {.model = {.name = from.model.name,
                    .hidden = from.model.hidden,
                    .activation = from.model.activation,
                    .dropout = from.model.dropout,
                    .batch_norm = from.model.batch_norm,
                    .stem = from.model.stem,
                    .width = from.model.width,
                    .blocks = from.model.blocks,
                    .zero_residual = from.model.zero_residual},
          .sample = job.train_set->sample_shape(),
          .outputs = classes ? job.train_set->classes() : job.train_set->target_width(),
          .loss = classes ? nn::StepOptions::Loss::kCrossEntropy
                          : nn::StepOptions::Loss::kMeanSquaredError,
          .label_smoothing = from.model.label_smoothing,
          .optimizer = {.name = from.optimizer.name,
                        .momentum = from.optimizer.momentum,
                        .nesterov = from.optimizer.nesterov,
                        .weight_decay = from.optimizer.weight_decay,
                        .decoupled = from.optimizer.decoupled,
                        .decay_norm_and_bias = from.optimizer.decay_norm_and_bias,
                        .beta1 = from.optimizer.beta1,
                        .beta2 = from.optimizer.beta2,
                        .epsilon = from.optimizer.epsilon,
                        .clip_norm = from.optimizer.clip_norm},
          .seed = static_cast<std::uint64_t>(from.train.seed)};
}

data::LoaderOptions loader_options(const Config& config) {
  return {.threads = static_cast<int>(config.data.loader_threads),
          .prefetch = static_cast<int>(config.data.prefetch)};
}

}  // namespace

std::int64_t Job::steps_per_epoch() const {
  return (train_set->size() + config.train.batch - 1) / config.train.batch;
}

std::int64_t Job::total_steps() const {
  const std::int64_t all = schedule_steps();
  return config.train.max_steps > 0 ? std::min(all, config.train.max_steps) : all;
}

double Job::learning_rate(std::int64_t step) const {
  const ScheduleConfig& from = config.schedule;
  const ScheduleOptions options{
      .name = from.name,
      .warmup_steps = from.warmup_steps,
      .milestones = from.milestones,
      .gamma = from.gamma,
      .decay_rate = from.decay_rate,
      .final_learning_rate_fraction = from.final_learning_rate_fraction,
      .initial_learning_rate_fraction = from.initial_learning_rate_fraction,
      .peak_fraction = from.peak_fraction};
  return concord::learning_rate(options, config.optimizer.learning_rate, step, schedule_steps(),
                                steps_per_epoch());
}

std::unique_ptr<data::Loader> Job::train_loader(std::int64_t first_step,
                                                std::int64_t end_step) const {
  const auto seed = static_cast<std::uint64_t>(config.train.seed);
  data::LoaderOptions options = loader_options(config);
  options.first_step = first_step;
  options.end_step = end_step;
  return std::make_unique<data::Loader>(
      *train_set, data::Sampler(train_set->size(), config.train.batch, seed, /*shuffle=*/true),
      data::Augmentation(data_options(config).augment, normalization, train_set->sample_shape(),
                         seed),
      options);
}

std::unique_ptr<data::Loader> Job::test_loader() const {
  data::Sampler sampler(test_set->size(), config.train.batch, 0, /*shuffle=*/false);
  data::LoaderOptions options = loader_options(config);
  options.end_step = sampler.steps_per_epoch();
  return std::make_unique<data::Loader>(
      *test_set, std::move(sampler),
      data::Augmentation::none(normalization, test_set->sample_shape()), options);
}

Samples samples_of(const data::Batch& batch) {
  return {.count = batch.count,
          .features = batch.features,
          .labels = batch.labels,
          .targets = batch.targets};
}

Job open_job(const Config& config, const KernelChoices& choices) {
  Job job;
  job.config = config;
  set_compute_threads(static_cast<int>(config.train.threads));
  const data::DataOptions options = data_options(config);
  job.train_set = data::open_dataset(options, data::Split::kTrain);
  job.test_set = data::open_dataset(options, data::Split::kTest);
  if (job.test_set->sample_shape() != job.train_set->sample_shape()) {
    fail("samples of the training set are {}, of the test set {}; expected the same shape",
         to_string(job.train_set->sample_shape()), to_string(job.test_set->sample_shape()));
  }
  job.normalization = data::choose_normalization(options, *job.train_set);

  EngineOptions engine_options{.batch = config.train.batch,
                               .leaves = config.train.leaves,
                               .microbatch = config.train.microbatch,
                               .seed = static_cast<std::uint64_t>(config.train.seed)};
  engine_options.policy.threads = compute_threads();
  engine_options.policy.winograd = config.train.winograd;
  engine_options.policy.measure = config.train.kernels == "measure";
  const std::filesystem::path cache = kernel_cache_path();
  engine_options.policy.choices = choices;
  if (engine_options.policy.measure)
    engine_options.policy.choices.merge(load_kernel_choices(cache));
  job.engine = std::make_unique<Engine>(model_graphs(step_options(job)), engine_options);
  // Every program that a run needs is compiled, and its kernels are measured, before the first
  // step.
  job.engine->prepare_training(std::min(config.train.batch, job.train_set->size()));
  job.engine->prepare_training(job.train_set->size() % config.train.batch);
  job.engine->prepare_evaluation(std::min(config.train.batch, job.test_set->size()));
  job.engine->prepare_evaluation(job.test_set->size() % config.train.batch);
  if (engine_options.policy.measure) save_kernel_choices(cache, job.engine->policy().choices);
  if (!config.model.weights.empty()) {
    load_weights(*job.engine, formats::SafetensorsFile::open(config.model.weights),
                 config.model.weights);
  }
  return job;
}

void load_weights(Engine& engine, const formats::SafetensorsFile& file, const std::string& source) {
  std::vector<std::string_view> known;
  for (const StateStore::Entry& entry : engine.states().entries()) {
    if (entry.role == State::Role::kOptimizer) continue;
    known.emplace_back(entry.name);
    if (!file.contains(entry.name)) {
      fail("{} has no tensor \"{}\", which the model needs as {}", source, entry.name,
           to_string(entry.type));
    }
    if (file.type(entry.name) != entry.type) {
      fail("{}: tensor \"{}\" is {}; the model needs {}", source, entry.name,
           to_string(file.type(entry.name)), to_string(entry.type));
    }
    engine.states().write(entry, file.bytes(entry.name).data());
  }
  for (const std::string& name : file.names()) {
    const StateStore::Entry* entry = engine.states().find(name);
    if (entry != nullptr && entry->role != State::Role::kOptimizer) continue;
    // PyTorch counts the batches that a batch norm has seen; Concord's running statistics need no
    // count.
    if (name.ends_with("num_batches_tracked")) continue;
    fail(
        "{} has a tensor \"{}\", which the model does not; the nearest name of the model is \"{}\"",
        source, name, nearest(name, known));
  }
}

}  // namespace concord::train

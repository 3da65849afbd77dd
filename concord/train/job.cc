#include "concord/train/job.h"

#include <algorithm>

#include "concord/base/error.h"
#include "concord/base/file_memory.h"
#include "concord/base/parallel.h"
#include "concord/base/text.h"
#include "concord/nn/step.h"
#include "concord/train/codecs.h"
#include "concord/train/kernel_cache.h"
#include "concord/train/memory.h"
#include "concord/train/pipeline.h"

namespace concord::train {
namespace {

using Loss = nn::StepOptions::Loss;

// A name of model.loss, and what its targets are (data/open.h).
struct NamedLoss {
  std::string_view name;
  Loss loss;
  std::string_view target;
};

constexpr NamedLoss kLosses[] = {
    {"cross_entropy", Loss::kCrossEntropy, "class"},
    {"mse", Loss::kMeanSquaredError, "values"},
    {"l1", Loss::kL1, "values"},
    {"huber", Loss::kHuber, "values"},
    {"bce", Loss::kBinaryCrossEntropy, "probabilities"},
};

const NamedLoss& loss_of(const Config& config) {
  const auto* const found = std::ranges::find(kLosses, config.model.loss, &NamedLoss::name);
  if (found == std::end(kLosses)) fail("model.loss = {}: no such loss", quote(config.model.loss));
  return *found;
}

data::DataOptions data_options(const Config& config) {
  const DataConfig& from = config.data;
  data::DataOptions to;
  to.kind = from.kind;
  to.directory = from.dir.empty() ? "." : from.dir;
  to.train = from.train_file.empty() ? from.train_features : from.train_file;
  to.test = from.test_file.empty() ? from.test_features : from.test_file;
  to.train_targets = from.train_labels;
  to.test_targets = from.test_labels;
  to.target = loss_of(config).target;
  to.limit_train = from.limit_train;
  to.limit_test = from.limit_test;
  to.image_size = static_cast<int>(from.image_size);
  to.csv_header = from.has_header;
  if (!from.target.empty()) to.csv_targets = from.target;
  to.csv_categorical = from.categorical;
  to.tokenizer = from.tokenizer;
  to.text_length = from.length;
  to.text_test_fraction = from.test_fraction;
  to.masked = nn::fills_masks(config.model.name);
  to.mask_token = from.mask_token;
  to.synthetic_samples = from.tokens ? data::SampleType::kTokens : data::SampleType::kValues;
  to.synthetic_shape = from.shape;
  to.synthetic_train_size = from.samples;
  to.synthetic_test_size = std::max<std::int64_t>(1, from.samples / 4);
  to.synthetic_target_width = static_cast<int>(std::max<std::int64_t>(1, from.targets));
  if (from.kind == "synthetic" && to.target == "class") to.classes = static_cast<int>(from.classes);
  to.normalize = from.normalize;
  to.mean.assign(from.mean.begin(), from.mean.end());
  to.deviation.assign(from.std.begin(), from.std.end());
  to.normalize_targets = from.normalize_targets;
  to.augment = {.crop_padding = static_cast<int>(from.crop_padding),
                .horizontal_flip = from.horizontal_flip,
                .cutout = static_cast<int>(from.cutout)};
  return to;
}

std::vector<RateFactor> rate_factors(const std::vector<std::string>& rates) {
  std::vector<RateFactor> factors;
  for (const std::string& rate : rates) factors.push_back(parse_rate_factor(rate).value());
  return factors;
}

// Of parameters whose states are offloaded: 4 MiB for each of their states.
constexpr std::int64_t kNumbersAtOnce = std::int64_t{1} << 20;

bool offloads(const Config& config, std::string_view what) {
  return config.parallel.offload == what || config.parallel.offload == "all";
}

// An existing one: where the file lies does not show, but on which disk.
std::filesystem::path offload_folder(const Config& config) {
  namespace fs = std::filesystem;
  if (config.parallel.offload == "none") return {};
  if (!config.parallel.offload_dir.empty()) return config.parallel.offload_dir;
  std::error_code error;
  fs::path folder = fs::absolute(config.output.dir).lexically_normal();
  while (!fs::is_directory(folder, error) && folder.has_relative_path()) {
    folder = folder.parent_path();
  }
  return folder;
}

// What nothing is put into, since nothing is large enough, is to be a folder for it all the same.
void check_offload_dir(const Config& config, const Engine& engine) {
  constexpr std::size_t kTried = std::size_t{1} << 20;
  const std::string& folder = config.parallel.offload_dir;
  if (folder.empty() || engine.offloaded_bytes() > 0) return;
  try {
    const FileMemory tried(folder, kTried);
  } catch (const Error& error) {
    fail("parallel.offload_dir = {}: {}", quote(folder), error.what());
  }
}

nn::StepOptions step_options(const Config& from, const data::Task& task) {
  return {.model = {.name = from.model.name,
                    .hidden = from.model.hidden,
                    .activation = from.model.activation,
                    .dropout = from.model.dropout,
                    .batch_norm = from.model.batch_norm,
                    .stem = from.model.stem,
                    .width = from.model.width,
                    .blocks = from.model.blocks,
                    .zero_residual = from.model.zero_residual,
                    .layers = from.model.layers,
                    .heads = from.model.heads,
                    .mlp = from.model.mlp,
                    .key_value_heads = from.model.key_value_heads,
                    .positions = from.model.positions,
                    .norm = from.model.norm,
                    .tied_embeddings = from.model.tied_embeddings,
                    .patch = from.model.patch,
                    .max_length = from.model.max_length},
          .tokens = task.sample_type == data::SampleType::kTokens,
          .labelled = task.mask ? data::Masking::chosen(task.sample[0]) : 0,
          .sample = task.sample,
          .outputs = task.outputs,
          .loss = loss_of(from).loss,
          .huber_delta = from.model.huber_delta,
          .label_smoothing = from.model.label_smoothing,
          .batch_norm_over_leaves = from.parallel.batch_norm == "batch",
          .optimizer = {.name = from.optimizer.name,
                        .momentum = from.optimizer.momentum,
                        .nesterov = from.optimizer.nesterov,
                        .weight_decay = from.optimizer.weight_decay,
                        .decoupled = from.optimizer.decoupled,
                        .decay_norm_and_bias = from.optimizer.decay_norm_and_bias,
                        .beta1 = from.optimizer.beta1,
                        .beta2 = from.optimizer.beta2,
                        .epsilon = from.optimizer.epsilon,
                        .alpha = from.optimizer.alpha,
                        .trust_coefficient = from.optimizer.trust_coefficient,
                        .adamw_rate_factor = from.optimizer.adamw_rate_factor,
                        .clip_norm = from.optimizer.clip_norm,
                        .ema_decay = from.optimizer.ema_decay,
                        .rates = rate_factors(from.optimizer.rates),
                        .numbers_at_once = offloads(from, "optimizer") ? kNumbersAtOnce : 0},
          .seed = static_cast<std::uint64_t>(from.train.seed)};
}

// With the compute threads set. `complete`: nothing is to be chosen here.
KernelPolicy kernel_policy(const Config& config, const KernelChoices& choices,
                           bool complete = false) {
  set_compute_threads(static_cast<int>(config.train.threads));
  KernelPolicy policy{.winograd = config.train.winograd,
                      .measure = config.train.kernels == "measure",
                      .same_in_parts = !config.parallel.split_sums,
                      .choices = choices};
  if (policy.measure && !complete) policy.choices.merge(load_kernel_choices(kernel_cache_path()));
  return policy;
}

Recompute recompute_named(const std::string& name) {
  return name == "full"        ? Recompute::kFull
         : name == "selective" ? Recompute::kSelective
                               : Recompute::kNone;
}

// The engine, with its compute threads set. `options.batch` and what follows it is the caller's.
std::unique_ptr<Engine> make_engine(const Config& config, const data::Task& task,
                                    EngineOptions options, const KernelChoices& choices,
                                    bool complete = false) {
  options.seed = static_cast<std::uint64_t>(config.train.seed);
  options.precision = config.train.precision == "bf16" ? DType::kBF16 : DType::kF32;
  options.policy = kernel_policy(config, choices, complete);
  return std::make_unique<Engine>(model_graphs(step_options(config, task)), options);
}

EngineOptions batch_options(const Config& config, EngineUse use) {
  return {.use = use,
          .batch = config.train.batch,
          .leaves = config.train.leaves,
          .microbatch = config.train.microbatch,
          .recompute = recompute_named(config.train.recompute),
          .bucket_bytes = static_cast<std::size_t>(config.parallel.bucket_bytes)};
}

// Compiles what a data set of `samples` needs, so that nothing is compiled or measured later.
void prepare(Engine& engine, const Config& config, std::int64_t samples,
             void (Engine::*compile)(std::int64_t)) {
  const std::int64_t batch = config.train.batch;
  (engine.*compile)(std::min(batch, samples));
  (engine.*compile)(samples % batch);
}

void save_measured_choices(const Engine& engine) {
  if (engine.policy().measure) save_kernel_choices(kernel_cache_path(), engine.policy().choices);
}

// Of this rank's samples of `set`, masked by `seed` where the task says so.
data::LoaderOptions loader_options(const Job& job, const data::Dataset& set, std::uint64_t seed,
                                   std::vector<data::Slice> slices) {
  data::LoaderOptions options{.threads = static_cast<int>(job.config.data.loader_threads),
                              .prefetch = static_cast<int>(job.config.data.prefetch),
                              .slices = std::move(slices)};
  if (job.task.mask) options.masking.emplace(set.classes(), *job.task.mask, seed);
  return options;
}

}  // namespace

bool Job::has_accuracy() const {
  const Loss loss = loss_of(config).loss;
  return loss == Loss::kCrossEntropy || loss == Loss::kBinaryCrossEntropy;
}

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
      .power = from.power,
      .initial_learning_rate_fraction = from.initial_learning_rate_fraction,
      .peak_fraction = from.peak_fraction};
  return concord::learning_rate(options, config.optimizer.learning_rate, step, schedule_steps(),
                                steps_per_epoch());
}

std::unique_ptr<data::Loader> Job::train_loader(std::int64_t first_step,
                                                std::int64_t end_step) const {
  const auto seed = static_cast<std::uint64_t>(config.train.seed);
  data::LoaderOptions options =
      loader_options(*this, *train_set, seed, engine->training_slices(config.train.batch));
  options.first_step = first_step;
  options.end_step = end_step;
  return std::make_unique<data::Loader>(
      *train_set, data::Sampler(train_set->size(), config.train.batch, seed, /*shuffle=*/true),
      data::Augmentation(data_options(config).augment, task.features, train_set->sample_shape(),
                         seed),
      options);
}

std::unique_ptr<data::Loader> Job::test_loader() const {
  // Masked alike in every evaluation, of any run.
  constexpr std::uint64_t kSeed = 0;
  data::Sampler sampler(test_set->size(), config.train.batch, kSeed, /*shuffle=*/false);
  data::LoaderOptions options =
      loader_options(*this, *test_set, kSeed, {engine->slice_of(config.train.batch)});
  options.end_step = sampler.steps_per_epoch();
  return std::make_unique<data::Loader>(
      *test_set, std::move(sampler), data::Augmentation::none(task.features, task.sample), options);
}

Samples samples_of(const data::Batch& batch) {
  return {.count = batch.count,
          .features = batch.features,
          .tokens = batch.tokens,
          .labels = batch.labels,
          .targets = batch.targets};
}

// The axes in the order in which ranks are numbered: those along "tensor" lie side by side.
Mesh mesh_of(const ParallelConfig& config, int ranks) {
  const auto extent = [&](std::string_view axis) -> std::int64_t {
    const auto found = config.mesh.find(std::string(axis));
    return found == config.mesh.end() ? 0 : found->second;
  };
  const std::int64_t tensor = std::max<std::int64_t>(1, extent(parallel::kTensorAxis));
  const std::int64_t pipe = std::max<std::int64_t>(1, extent(parallel::kPipeAxis));
  const std::int64_t given = extent(parallel::kDataAxis);
  const std::int64_t data = given == 0 ? std::max<std::int64_t>(1, ranks / (pipe * tensor)) : given;
  const std::int64_t product = data * pipe * tensor;
  if (product != ranks) {
    fail(
        "parallel.mesh: {{data: {}, {}tensor: {}}} is for {} rank{}, and there {} {}: start {}, or "
        "set axes whose product is {}",
        data, pipe > 1 ? fmt::format("pipe: {}, ", pipe) : "", tensor, product,
        product == 1 ? "" : "s", ranks == 1 ? "is" : "are", ranks, product, ranks);
  }
  Mesh mesh{{{std::string(parallel::kDataAxis), static_cast<int>(data)}}};
  if (pipe > 1) mesh.axes.push_back({std::string(parallel::kPipeAxis), static_cast<int>(pipe)});
  if (tensor > 1) {
    mesh.axes.push_back({std::string(parallel::kTensorAxis), static_cast<int>(tensor)});
  }
  return mesh;
}

parallel::Plan plan_of(const ParallelConfig& config, int ranks) {
  parallel::Plan plan{.mesh = mesh_of(config, ranks),
                      .may_split_sums = config.split_sums,
                      .zero = static_cast<int>(config.zero),
                      .schedule = *parallel::find_schedule(config.schedule)};
  if (plan.mesh.extent(parallel::kPipeAxis) > 1) {
    plan.vertical_sync = config.vertical_sync;
    plan.chunks = config.chunks == 0 ? parallel::fewest_chunks(plan.schedule)
                                     : static_cast<int>(config.chunks);
  }
  for (const auto& [pattern, text] : config.place) {
    plan.pins.push_back(parallel::parse_pin(pattern, text));
  }
  if (has_codecs(config)) {
    plan.encoders = config.encoders > 0 ? config.encoders : plan.mesh.extent(parallel::kDataAxis);
    plan.codecs = codec_rules(config, plan.encoders);
  }
  return plan;
}

namespace {

EngineOptions training_options(const Config& config, comm::Communicator* ranks) {
  EngineOptions options = batch_options(config, EngineUse::kTraining);
  options.plan = plan_of(config.parallel, ranks == nullptr ? 1 : ranks->size());
  options.ranks = ranks;
  options.leaves_of_ranks = config.parallel.leaves;
  options.local = config.parallel.sync != "all_reduce" && ranks != nullptr && ranks->size() > 1;
  options.only_planned = true;
  options.offload_states = offloads(config, "optimizer");
  options.offload_activations = offloads(config, "activations");
  options.offload_dir = offload_folder(config);
  return options;
}

}  // namespace

int ranks_of_mesh(const ParallelConfig& config) {
  std::int64_t product = 1;
  for (const auto& [axis, extent] : config.mesh) product *= extent;
  return static_cast<int>(product);
}

bool shares_memory(const ParallelConfig& config) {
  return config.transport == "auto" || config.transport == "shm";
}

std::unique_ptr<Engine> plan_engine(const Job& job, const Config& config,
                                    comm::Communicator& ranks) {
  std::unique_ptr<Engine> engine = make_engine(config, job.task, training_options(config, &ranks),
                                               job.engine->policy().choices, /*complete=*/true);
  prepare(*engine, config, job.train_set->size(), &Engine::prepare_training);
  prepare(*engine, config, job.test_set->size(), &Engine::prepare_evaluation);
  return engine;
}

Job open_job(const Config& config, const KernelChoices& choices, comm::Communicator* ranks,
             bool only_planned) {
  const bool follows = ranks != nullptr && !ranks->is_first();
  Job job;
  job.config = config;
  const EngineOptions options = training_options(config, ranks);
  if (has_codecs(config.parallel)) job.config.parallel.encoders = options.plan.encoders;
  if (ranks != nullptr) {  // before rank 0 compiles, and the others wait for what it chooses
    for (const std::string_view axis : {parallel::kDataAxis, parallel::kTensorAxis}) {
      ranks->split(options.plan.mesh, axis);
    }
    ranks_along_pipe(options.plan, *ranks);
  }
  data::DataSets sets = data::open_data(data_options(config));
  job.task = std::move(sets.task);
  job.train_set = std::move(sets.train);
  job.test_set = std::move(sets.test);
  const KernelChoices known =
      follows ? parse_kernel_choices(ranks->broadcast(""), "rank 0's kernel choices") : choices;
  job.engine = make_engine(config, job.task, options, known, follows);
  prepare(*job.engine, config, job.train_set->size(), &Engine::prepare_training);
  prepare(*job.engine, config, job.test_set->size(), &Engine::prepare_evaluation);
  const KernelChoices& made = job.engine->policy().choices;
  if (follows && made.size() != known.size()) {
    fail(
        "rank {} has kernels to choose that rank 0 has not: ranks need the same processor, oneDNN "
        "and number of threads to compute the same bits",
        ranks->rank());
  }
  job.memory = memory_report(job, config, *job.engine);
  if (!follows && !only_planned) check_memory(job);  // before the others have gone on
  if (ranks != nullptr && !follows) ranks->broadcast(to_json(made));
  if (!follows) save_measured_choices(*job.engine);
  if (only_planned) return job;
  job.engine->allocate();
  check_offload_dir(config, *job.engine);
  job.engine->join_ranks();
  return job;
}

Job open_evaluation(const Config& config, const data::Task& task, const KernelChoices& choices) {
  Job job{.config = config, .task = task};
  job.test_set = data::open_test_set(data_options(config), task);
  job.engine = make_engine(config, task, batch_options(config, EngineUse::kEvaluation), choices);
  prepare(*job.engine, config, job.test_set->size(), &Engine::prepare_evaluation);
  save_measured_choices(*job.engine);
  return job;
}

std::unique_ptr<Engine> make_predictor(const Config& config, const data::Task& task,
                                       std::int64_t samples, const KernelChoices& choices) {
  std::unique_ptr<Engine> engine = make_engine(
      config, task, {.use = EngineUse::kPrediction, .batch = samples, .leaves = 1}, choices);
  save_measured_choices(*engine);
  return engine;
}

std::unique_ptr<Decoder> make_decoder(const Config& config, const data::Task& task,
                                      const KernelChoices& choices) {
  return std::make_unique<Decoder>(step_options(config, task), kernel_policy(config, choices));
}

void load_initial_weights(Job& job) {
  const std::string& path = job.config.model.weights;
  if (path.empty()) return;
  load_weights(job.engine->states(), formats::SafetensorsFile::open(path), path);
  job.engine->start_averages();
}

void load_weights(StateStore& states, const formats::SafetensorsFile& file,
                  const std::string& source) {
  const auto is_weight = [](const StateStore::Entry& entry) {
    return entry.role == State::Role::kParameter || entry.role == State::Role::kStatistic;
  };
  std::vector<std::string_view> known;
  for (const StateStore::Entry& entry : states.entries()) {
    if (!is_weight(entry)) continue;
    known.emplace_back(entry.name);
    if (!file.contains(entry.name)) {
      fail("{} has no tensor \"{}\", which the model needs as {}", source, entry.name,
           to_string(entry.type));
    }
    if (file.type(entry.name) != entry.type) {
      fail("{}: tensor \"{}\" is {}; the model needs {}", source, entry.name,
           to_string(file.type(entry.name)), to_string(entry.type));
    }
    states.write(entry, file.bytes(entry.name).data());
    if (!is_finite(states, entry)) {
      fail("{}: tensor \"{}\" holds numbers that are not finite", source, entry.name);
    }
  }
  for (const std::string& name : file.names()) {
    const StateStore::Entry* entry = states.find(name);
    if (entry != nullptr && is_weight(*entry)) continue;
    // PyTorch counts the batches that a batch norm has seen; Concord's running statistics need no
    // count.
    if (name.ends_with("num_batches_tracked")) continue;
    fail(
        "{} has a tensor \"{}\", which the model does not; the nearest name of the model is \"{}\"",
        source, name, nearest(name, known));
  }
}

}  // namespace concord::train

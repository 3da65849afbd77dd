// What a run is told: a TOML file, then `--set section.key=value` from the command line, read into
// plain structs. Each key's meaning and limits are declared once, in config_schema.cc; the page
// docs/configuration.md is printed from there. A value not given has the default written here.
//
// Errors: every function throws Error; the message names the key, where it was set ("run.toml:12"
// or "--set ..."), what was expected and the nearest valid name.
// Thread safety: the functions share no state.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace concord {

struct ModelConfig {
  std::string name = "mlp";
  std::string weights;
  std::string stem = "cifar";
  std::vector<std::int64_t> hidden = {128};
  std::string activation = "relu";
  double dropout = 0;
  bool batch_norm = true;
  std::int64_t width = 16;
  std::vector<std::int64_t> blocks = {3, 3, 3};
  bool zero_residual = false;
  std::int64_t layers = 6;
  std::int64_t heads = 6;
  std::int64_t mlp = 0;
  std::int64_t key_value_heads = 0;
  std::string positions = "learned";
  std::string norm = "layer_norm";
  bool tied_embeddings = true;
  std::int64_t patch = 4;
  std::int64_t max_length = 0;
  std::string loss = "cross_entropy";
  double huber_delta = 1;
  double label_smoothing = 0;
  bool operator==(const ModelConfig&) const = default;
};

struct DataConfig {
  std::string kind = "idx";
  std::string dir;
  std::string train_features;
  std::string train_labels;
  std::string test_features;
  std::string test_labels;
  std::string train_file;
  std::string test_file;
  std::vector<std::string> target;
  std::vector<std::string> categorical;
  bool has_header = true;
  std::int64_t image_size = 224;
  std::string normalize = "auto";
  std::vector<double> mean;
  std::vector<double> std;
  std::string normalize_targets = "none";
  std::int64_t crop_padding = 0;
  bool horizontal_flip = false;
  std::int64_t cutout = 0;
  std::int64_t loader_threads = 1;
  std::int64_t prefetch = 4;
  std::int64_t limit_train = 0;
  std::int64_t limit_test = 0;
  std::int64_t samples = 1024;
  std::vector<std::int64_t> shape = {1, 28, 28};
  std::int64_t classes = 10;
  std::int64_t targets = 0;
  bool tokens = false;
  std::int64_t length = 256;
  std::string tokenizer = "bytes";
  std::string mask_token;
  double test_fraction = 0.1;
  bool operator==(const DataConfig&) const = default;
};

struct TrainConfig {
  std::int64_t batch = 64;
  std::int64_t leaves = 0;
  std::int64_t microbatch = 0;
  std::int64_t epochs = 10;
  std::int64_t max_steps = 0;
  std::int64_t seed = 1;
  std::int64_t threads = 0;
  std::string precision = "f32";
  std::string recompute = "none";
  std::string nonfinite = "stop";
  std::int64_t log_every = 50;
  std::int64_t eval_every_epochs = 1;
  std::int64_t checkpoint_every_steps = 0;
  bool winograd = true;
  std::string kernels = "measure";
  std::int64_t memory_limit = 0;
  bool operator==(const TrainConfig&) const = default;
};

struct OptimizerConfig {
  std::string name = "sgd";
  double learning_rate = 0.01;
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 0;
  bool decoupled = false;
  bool decay_norm_and_bias = false;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double alpha = 0.99;
  double trust_coefficient = 0.001;
  double adamw_rate_factor = 1;
  double clip_norm = 0;
  double ema_decay = 0;
  std::vector<std::string> rates;
  bool operator==(const OptimizerConfig&) const = default;
};

struct ScheduleConfig {
  std::string name = "constant";
  std::int64_t warmup_steps = 0;
  std::vector<double> milestones;
  double gamma = 0.1;
  double decay_rate = 0.001;
  double final_learning_rate_fraction = 0;
  double power = 2;
  double initial_learning_rate_fraction = 0.04;
  double peak_fraction = 0.3;
  bool operator==(const ScheduleConfig&) const = default;
};

struct ParallelConfig {
  std::map<std::string, std::int64_t> mesh;
  std::map<std::string, std::string> place;
  std::string schedule = "1f1b";
  std::int64_t chunks = 0;
  bool vertical_sync = false;
  std::int64_t zero = 0;
  std::string offload = "none";
  std::string offload_dir;
  bool split_sums = true;
  std::string codec = "none";
  std::map<std::string, std::string> codecs;
  std::int64_t encoders = 0;
  std::string codec_way = "auto";
  std::string transport = "auto";
  std::string algorithm = "auto";
  bool deterministic = true;
  std::vector<std::int64_t> leaves;
  std::int64_t bucket_bytes = std::int64_t{8} << 20;
  std::string batch_norm = "leaf";
  std::string sync = "all_reduce";
  std::int64_t local_steps = 8;
  std::int64_t local_after = 0;
  double outer_learning_rate = 1;
  double outer_momentum = 0;
  double timeout_seconds = 300;
  bool operator==(const ParallelConfig&) const = default;
};

struct OutputConfig {
  std::string dir;
  std::int64_t keep_checkpoints = 2;
  bool tensorboard = true;
  std::int64_t trace_steps = 0;
  std::int64_t trace_after = 10;
  bool operator==(const OutputConfig&) const = default;
};

struct Config {
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  ParallelConfig parallel;
  OutputConfig output;
  bool operator==(const Config&) const = default;
};

// Reads TOML `text`, then each override "section.key=value" in order, and checks the result.
// `file_name` stands in messages, and its stem gives output.dir where that is not set. A value of
// an override is TOML; for a key that holds a string the quotes may be left out.
Config parse_config(std::string_view text, std::string_view file_name,
                    std::span<const std::string> overrides = {});

// parse_config of a file of at most 1 MiB.
Config load_config(const std::filesystem::path& path, std::span<const std::string> overrides = {},
                   const std::filesystem::path& plan = {});

// Throws when a value is outside its limits or contradicts another; for a Config made in C++
// (parse_config has already checked its own).
void validate_config(const Config& config);

// For a run that resumes: throws, naming the key and both values, when a key differs between the
// two that a run must keep. Free are the keys of logging, checkpoints, output, data loading and
// length; not of checkpoints and evaluation where ranks train by themselves.
void check_resumable(const Config& before, const Config& now);

// For a checkpoint that is evaluated: throws likewise when a key differs that says what is computed
// with its weights: those of [model] but model.weights, train.precision, and what the data was.
void check_same_model(const Config& before, const Config& now);

// Every key with its value, as TOML that parses back to an equal Config.
std::string to_toml(const Config& config);

}  // namespace concord

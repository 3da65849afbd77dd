#include "concord/data/open.h"

#include <algorithm>
#include <filesystem>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/text.h"
#include "concord/data/cifar.h"
#include "concord/data/csv.h"
#include "concord/data/idx.h"
#include "concord/data/image_folder.h"
#include "concord/data/npy.h"
#include "concord/data/synthetic.h"
#include "concord/data/token_windows.h"

namespace concord::data {
namespace {

namespace fs = std::filesystem;

// `name` within the data folder, or `usual` where no name is given.
fs::path path_of(const DataOptions& options, const std::string& name, const char* usual) {
  return fs::path(options.directory) / (name.empty() ? usual : name);
}

// As above; the usual file may be compressed.
fs::path idx_path(const DataOptions& options, const std::string& name, const char* usual) {
  fs::path path = path_of(options, name, usual);
  if (!name.empty() || file_exists(path)) return path;
  fs::path compressed = path;
  compressed += ".gz";
  if (!file_exists(compressed)) {
    fail("found neither {} nor {}: set data.dir to the folder that holds the IDX files",
         path.string(), compressed.string());
  }
  return compressed;
}

bool has_probabilities(const DataOptions& options) { return options.target == "probabilities"; }

TargetType target_type(const DataOptions& options) {
  if (options.target == "class") return TargetType::kClass;
  if (options.target == "values" || has_probabilities(options)) return TargetType::kValues;
  fail("data target '{}': expected class, values or probabilities", options.target);
}

enum class Split { kTrain, kTest };

fs::path idx_labels(const DataOptions& options) {
  return idx_path(options, options.train_targets, "train-labels-idx1-ubyte");
}

std::unique_ptr<Dataset> open_idx_split(const DataOptions& options, Split split, const Task& task) {
  if (split == Split::kTrain) {
    return open_idx(idx_path(options, options.train, "train-images-idx3-ubyte"),
                    idx_labels(options), task.outputs);
  }
  return open_idx(idx_path(options, options.test, "t10k-images-idx3-ubyte"),
                  idx_path(options, options.test_targets, "t10k-labels-idx1-ubyte"), task.outputs);
}

std::unique_ptr<Dataset> open_cifar_split(const DataOptions& options, CifarKind kind, bool train) {
  const fs::path directory = options.directory;
  std::vector<fs::path> files;
  if (kind == CifarKind::k100) {
    files = {directory / (train ? "train.bin" : "test.bin")};
  } else if (train) {
    for (int i = 1; i <= 5; ++i) files.push_back(directory / fmt::format("data_batch_{}.bin", i));
  } else {
    files = {directory / "test_batch.bin"};
  }
  const fs::path names =
      directory / (kind == CifarKind::k10 ? "batches.meta.txt" : "fine_label_names.txt");
  return open_cifar(files, kind, file_exists(names) ? names : fs::path());
}

std::unique_ptr<Dataset> open_images_split(const DataOptions& options, Split split,
                                           const Task& task) {
  const fs::path root = split == Split::kTrain ? path_of(options, options.train, "train")
                                               : path_of(options, options.test, "test");
  return open_image_folder(root, options.image_size, task.class_names);
}

std::unique_ptr<Dataset> open_csv_split(const DataOptions& options, Split split, const Task& task) {
  if (!task.table) fail("the model was not trained on a table: expected no data of kind csv");
  const fs::path file = split == Split::kTrain ? path_of(options, options.train, "train.csv")
                                               : path_of(options, options.test, "test.csv");
  return parse_csv(read_file(file), *task.table, file.string());
}

fs::path npy_targets(const DataOptions& options, Split split) {
  return split == Split::kTrain ? path_of(options, options.train_targets, "train_targets.npy")
                                : path_of(options, options.test_targets, "test_targets.npy");
}

std::unique_ptr<Dataset> open_npy_split(const DataOptions& options, Split split, const Task& task) {
  const fs::path features = split == Split::kTrain
                                ? path_of(options, options.train, "train_features.npy")
                                : path_of(options, options.test, "test_features.npy");
  const fs::path targets = npy_targets(options, split);
  const bool numbers = split == Split::kTest && !task.scaled_bytes;
  const NpyBytes bytes = numbers ? NpyBytes::kNumbers : NpyBytes::kPixels;
  if (task.target == TargetType::kValues) return open_npy_values(features, targets, bytes);
  return open_npy_classes(features, targets, task.outputs, bytes);
}

std::unique_ptr<Dataset> open_synthetic_split(const DataOptions& options, Split split) {
  const bool train = split == Split::kTrain;
  return open_synthetic({.sample_type = options.synthetic_samples,
                         .sample_shape = Shape(options.synthetic_shape),
                         .size = train ? options.synthetic_train_size : options.synthetic_test_size,
                         .target_type = target_type(options),
                         .classes = options.classes == 0 ? 10 : options.classes,
                         .target_width = options.synthetic_target_width,
                         .binary_targets = has_probabilities(options),
                         .seed = options.synthetic_seed,
                         .split = train ? 0u : 1u});
}

// The tokenizer is part of the task: whoever has that needs no file of it.
std::unique_ptr<Dataset> open_text_split(const DataOptions& options, Split split,
                                         const Task& task) {
  if (!task.tokenizer) fail("the model was not trained on text: expected no data of kind text");
  const bool own_file = split == Split::kTest && !options.test.empty();
  const fs::path file =
      own_file ? path_of(options, options.test, "") : path_of(options, options.train, "train.txt");
  const std::string text = read_text(file);
  std::string_view part = text;
  if (options.test.empty()) {
    const TextParts parts = split_text(text, options.text_test_fraction, file.string());
    part = split == Split::kTrain ? parts.training : parts.validation;
  }
  TokenStream tokens = to_tokens(*task.tokenizer, part);
  return token_windows(std::move(tokens), options.text_length, task.tokenizer->vocabulary_size(),
                       file.string());
}

CsvSchema learn_table(const DataOptions& options) {
  if (options.csv_separator.size() != 1) {
    fail("csv separator '{}': expected one byte", options.csv_separator);
  }
  const fs::path file = path_of(options, options.train, "train.csv");
  return csv_schema(read_file(file),
                    {options.csv_header, options.csv_separator.front(), target_type(options),
                     options.csv_targets, options.csv_categorical},
                    file.string());
}

// What must be known of the training split before either can be read: its classes or columns.
Task learn_vocabulary(const DataOptions& options) {
  Task task;
  task.target = target_type(options);
  task.outputs = options.classes;
  if (options.kind == "idx" && options.classes == 0) {
    const fs::path labels = idx_labels(options);
    task.outputs = count_classes(read_idx_labels(labels), labels.string());
  } else if (options.kind == "npy" && options.classes == 0 && task.target == TargetType::kClass) {
    const fs::path labels = npy_targets(options, Split::kTrain);
    task.outputs = count_classes(read_npy_labels(labels), labels.string());
  } else if (options.kind == "images") {
    task.class_names = class_folders(path_of(options, options.train, "train"));
  } else if (options.kind == "text") {
    task.tokenizer = open_tokenizer(options.tokenizer);
  } else if (options.kind == "csv") {
    task.table = learn_table(options);
  }
  return task;
}

// One split of files, read as `task` says.
std::unique_ptr<Dataset> open_files(const DataOptions& options, Split split, const Task& task) {
  const bool train = split == Split::kTrain;
  if (options.kind == "idx") return open_idx_split(options, split, task);
  if (options.kind == "cifar10") return open_cifar_split(options, CifarKind::k10, train);
  if (options.kind == "cifar100") return open_cifar_split(options, CifarKind::k100, train);
  if (options.kind == "images") return open_images_split(options, split, task);
  if (options.kind == "csv") return open_csv_split(options, split, task);
  if (options.kind == "npy") return open_npy_split(options, split, task);
  if (options.kind == "text") return open_text_split(options, split, task);
  if (options.kind == "synthetic") return open_synthetic_split(options, split);
  fail("data kind '{}': expected idx, cifar10, cifar100, images, csv, npy, text or synthetic",
       options.kind);
}

void check_directory(const DataOptions& options) {
  std::error_code ignored;
  if (options.directory.empty() || fs::is_directory(options.directory, ignored)) return;
  fail("data.dir = {}: there is no such folder; set it to the one that holds the data",
       quote(options.directory));
}

// Targets and samples are counted from 0.
void check_probabilities(const Targets& targets, const DataOptions& options, Split split) {
  const auto is_outside = [](float value) { return !(value >= 0 && value <= 1); };
  const auto found = std::ranges::find_if(targets.values, is_outside);
  if (found == targets.values.end()) return;
  const auto place = found - targets.values.begin();
  fail(
      "the {} data of kind {} in {}: target {} of sample {} is {}; model.loss = \"bce\" expects 0, "
      "1 or a probability between them: set \"mse\", \"l1\" or \"huber\" for other numbers",
      split == Split::kTrain ? "training" : "test", options.kind, options.directory,
      place % targets.width, place / targets.width, *found);
}

std::unique_ptr<Dataset> open_split(const DataOptions& options, Split split, const Task& task) {
  std::unique_ptr<Dataset> dataset = open_files(options, split, task);
  if (dataset->target_type() != target_type(options)) {
    fail(
        "data of kind {} has class labels: set model.loss = \"cross_entropy\"; the other losses "
        "compare numbers",
        options.kind);
  }
  if (has_probabilities(options)) check_probabilities(dataset->targets(), options, split);
  if (options.classes != 0 && options.classes != dataset->classes()) {
    fail("{} classes given, but the data of kind {} in {} has {}", options.classes, options.kind,
         options.directory, dataset->classes());
  }
  const std::int64_t limit = split == Split::kTrain ? options.limit_train : options.limit_test;
  return limit == 0 ? std::move(dataset) : first_samples(std::move(dataset), limit);
}

// The token that hides others.
TokenId mask_of(const DataOptions& options, const Dataset& dataset, const Task& task) {
  if (options.mask_token.empty()) return dataset.classes();
  const std::optional<TokenId> id =
      task.tokenizer ? task.tokenizer->find(options.mask_token) : std::nullopt;
  if (!id) {
    fail("data.mask_token = {}: {} has no such token; leave it out for one beside the tokenizer's",
         quote(options.mask_token), options.tokenizer);
  }
  return *id;
}

int outputs_of(const Dataset& dataset, const Task& task) {
  if (dataset.target_type() != TargetType::kClass) return dataset.target_width();
  return task.mask ? std::max(dataset.classes(), *task.mask + 1) : dataset.classes();
}

// Throws unless the test split asks the same of a model.
void check_fits(const Dataset& test, const Task& task) {
  if (test.sample_type() != task.sample_type || test.sample_shape() != task.sample) {
    fail("samples of the training set are {}, of the test set {}; expected the same shape",
         to_string(task.sample), to_string(test.sample_shape()));
  }
  if (test.target_type() != task.target || outputs_of(test, task) != task.outputs) {
    const auto describe = [](TargetType target, int outputs) {
      return fmt::format("{} {}", outputs, target == TargetType::kClass ? "classes" : "values");
    };
    fail("targets of the training set are {}, of the test set {}; expected the same",
         describe(task.target, task.outputs), describe(test.target_type(), outputs_of(test, task)));
  }
}

Normalization choose_normalization(const DataOptions& options, const Dataset& train) {
  const bool given = !options.mean.empty() || !options.deviation.empty();
  if (given != (options.normalize == "given")) {
    fail(
        "normalize = '{}' with {} means and {} deviations: 'given' needs them, no other choice "
        "takes them",
        options.normalize, options.mean.size(), options.deviation.size());
  }
  if (options.normalize == "none" || train.sample_type() == SampleType::kTokens) return {};
  if (options.normalize == "auto") return measure_normalization(train);
  if (!given) fail("normalize = '{}': expected none, auto or given", options.normalize);
  Normalization normalization{options.mean, options.deviation};
  check_normalization(normalization, train.sample_shape());
  return normalization;
}

Normalization choose_target_normalization(const DataOptions& options, const Dataset& train) {
  if (options.normalize_targets == "none") return {};
  if (options.normalize_targets != "auto") {
    fail("normalize_targets = '{}': expected none or auto", options.normalize_targets);
  }
  if (train.target_type() != TargetType::kValues) {
    fail("normalize_targets = 'auto' for classes: expected targets that are values");
  }
  return measure_target_normalization(train);
}

}  // namespace

DataSets open_data(const DataOptions& options) {
  if (options.classes < 0) {
    fail("{} classes: expected a positive number, or 0 to count them", options.classes);
  }
  check_directory(options);
  DataSets sets{.task = learn_vocabulary(options)};
  Task& task = sets.task;
  sets.train = open_split(options, Split::kTrain, task);
  task.sample_type = sets.train->sample_type();
  task.sample = sets.train->sample_shape();
  if (options.masked && task.sample_type == SampleType::kTokens) {
    task.mask = mask_of(options, *sets.train, task);
  }
  task.outputs = outputs_of(*sets.train, task);
  task.class_names = sets.train->class_names();
  task.scaled_bytes = sets.train->scaled_bytes();
  check_names(task);
  task.features = choose_normalization(options, *sets.train);
  task.targets = choose_target_normalization(options, *sets.train);
  sets.train = normalize_targets(std::move(sets.train), task.targets);
  sets.test = open_test_set(options, task);
  return sets;
}

std::unique_ptr<Dataset> open_test_set(const DataOptions& options, const Task& task) {
  check_directory(options);
  std::unique_ptr<Dataset> test = open_split(options, Split::kTest, task);
  check_fits(*test, task);
  return normalize_targets(std::move(test), task.targets);
}

}  // namespace concord::data

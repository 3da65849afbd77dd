#include "concord/data/open.h"

#include "concord/base/error.h"
#include "concord/data/cifar.h"
#include "concord/data/csv.h"
#include "concord/data/idx.h"
#include "concord/data/image_folder.h"
#include "concord/data/npy.h"
#include "concord/data/synthetic.h"

namespace concord::data {
namespace {

namespace fs = std::filesystem;

// `name` within the data folder, or `usual` where no name is given.
fs::path path_of(const DataOptions& options, const std::string& name, const char* usual) {
  return fs::path(options.directory) / (name.empty() ? usual : name);
}

// As above; the usual file may be compressed.
fs::path idx_path(const DataOptions& options, const std::string& name, const char* usual) {
  const fs::path path = path_of(options, name, usual);
  if (!name.empty() || fs::exists(path)) return path;
  fs::path compressed = path;
  compressed += ".gz";
  if (!fs::exists(compressed)) {
    fail("found neither {} nor {}: set data.dir to the folder that holds the IDX files",
         path.string(), compressed.string());
  }
  return compressed;
}

TargetType target_type(const DataOptions& options) {
  if (options.target == "class") return TargetType::kClass;
  if (options.target == "values") return TargetType::kValues;
  fail("data target '{}': expected class or values", options.target);
}

std::unique_ptr<Dataset> open_idx_split(const DataOptions& options, bool train) {
  const auto train_labels = [&] {
    return idx_path(options, options.train_targets, "train-labels-idx1-ubyte");
  };
  int classes = options.classes;
  if (classes == 0) {
    const fs::path labels = train_labels();
    classes = count_classes(read_idx_labels(labels), labels.string());
  }
  if (train) {
    return open_idx(idx_path(options, options.train, "train-images-idx3-ubyte"), train_labels(),
                    classes);
  }
  return open_idx(idx_path(options, options.test, "t10k-images-idx3-ubyte"),
                  idx_path(options, options.test_targets, "t10k-labels-idx1-ubyte"), classes);
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
  return open_cifar(files, kind, fs::exists(names) ? names : fs::path());
}

std::unique_ptr<Dataset> open_images_split(const DataOptions& options, bool train) {
  const fs::path train_root = path_of(options, options.train, "train");
  const fs::path root = train ? train_root : path_of(options, options.test, "test");
  return open_image_folder(root, options.image_size, class_folders(train_root));
}

std::unique_ptr<Dataset> open_csv_split(const DataOptions& options, bool train) {
  if (options.csv_separator.size() != 1) {
    fail("csv separator '{}': expected one byte", options.csv_separator);
  }
  const fs::path train_file = path_of(options, options.train, "train.csv");
  const fs::path file = train ? train_file : path_of(options, options.test, "test.csv");
  return open_csv(file, train_file,
                  {options.csv_header, options.csv_separator.front(), target_type(options),
                   options.csv_targets, options.csv_categorical});
}

std::unique_ptr<Dataset> open_npy_split(const DataOptions& options, bool train) {
  const fs::path train_targets = path_of(options, options.train_targets, "train_targets.npy");
  const fs::path targets =
      train ? train_targets : path_of(options, options.test_targets, "test_targets.npy");
  const fs::path features = train ? path_of(options, options.train, "train_features.npy")
                                  : path_of(options, options.test, "test_features.npy");
  if (target_type(options) == TargetType::kValues) return open_npy_values(features, targets);
  const int classes = options.classes != 0
                          ? options.classes
                          : count_classes(read_npy_labels(train_targets), train_targets.string());
  return open_npy_classes(features, targets, classes);
}

std::unique_ptr<Dataset> open_synthetic_split(const DataOptions& options, bool train) {
  return open_synthetic({.sample_shape = Shape(options.synthetic_shape),
                         .size = train ? options.synthetic_train_size : options.synthetic_test_size,
                         .target_type = target_type(options),
                         .classes = options.classes == 0 ? 10 : options.classes,
                         .target_width = options.synthetic_target_width,
                         .seed = options.synthetic_seed,
                         .split = train ? 0u : 1u});
}

std::unique_ptr<Dataset> open_split(const DataOptions& options, bool train) {
  if (options.kind == "idx") return open_idx_split(options, train);
  if (options.kind == "cifar10") return open_cifar_split(options, CifarKind::k10, train);
  if (options.kind == "cifar100") return open_cifar_split(options, CifarKind::k100, train);
  if (options.kind == "images") return open_images_split(options, train);
  if (options.kind == "csv") return open_csv_split(options, train);
  if (options.kind == "npy") return open_npy_split(options, train);
  if (options.kind == "synthetic") return open_synthetic_split(options, train);
  fail("data kind '{}': expected idx, cifar10, cifar100, images, csv, npy or synthetic",
       options.kind);
}

}  // namespace

std::unique_ptr<Dataset> open_dataset(const DataOptions& options, Split split) {
  const bool train = split == Split::kTrain;
  if (options.classes < 0) {
    fail("{} classes: expected a positive number, or 0 to count them", options.classes);
  }
  std::unique_ptr<Dataset> dataset = open_split(options, train);
  if (dataset->target_type() != target_type(options)) {
    fail("data of kind {} has class labels: expected target class, not {}", options.kind,
         options.target);
  }
  if (options.classes != 0 && options.classes != dataset->classes()) {
    fail("{} classes given, but the data of kind {} in {} has {}", options.classes, options.kind,
         options.directory, dataset->classes());
  }
  const std::int64_t limit = train ? options.limit_train : options.limit_test;
  return limit == 0 ? std::move(dataset) : first_samples(std::move(dataset), limit);
}

Normalization choose_normalization(const DataOptions& options, const Dataset& train) {
  const bool given = !options.mean.empty() || !options.deviation.empty();
  if (given != (options.normalize == "given")) {
    fail(
        "normalize = '{}' with {} means and {} deviations: 'given' needs them, no other choice "
        "takes them",
        options.normalize, options.mean.size(), options.deviation.size());
  }
  if (options.normalize == "none") return {};
  if (options.normalize == "auto") return measure_normalization(train);
  if (!given) fail("normalize = '{}': expected none, auto or given", options.normalize);
  Normalization normalization{options.mean, options.deviation};
  check_normalization(normalization, train.sample_shape());
  return normalization;
}

}  // namespace concord::data

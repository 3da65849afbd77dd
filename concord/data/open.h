// Opens any kind of data set from one plain set of options, as a run's configuration holds them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "concord/data/augment.h"
#include "concord/data/dataset.h"
#include "concord/data/task.h"

namespace concord::data {

struct DataOptions {
  // "idx" (MNIST and relatives), "cifar10", "cifar100", "images" (folders of JPEG and PNG files),
  // "csv", "npy", "text" or "synthetic".
  std::string kind;
  // Paths below are relative to this folder.
  std::string directory = ".";

  // The files of each split; empty: the usual names, which are
  //   idx     {train,t10k}-images-idx3-ubyte and -labels-idx1-ubyte, with or without .gz
  //   images  the folders train and test
  //   csv     train.csv and test.csv
  //   text    train.txt, whose end is the test split where `test` is empty
  //   npy     {train,test}_features.npy and {train,test}_targets.npy
  // cifar10 and cifar100 always use the names of the binary version.
  std::string train;
  std::string test;
  std::string train_targets;  // idx and npy: labels or target values
  std::string test_targets;

  // "class" (a label) or, for csv, npy and synthetic, "values" (numbers to predict) or
  // "probabilities" (such numbers in [0, 1]).
  std::string target = "class";
  // Number of classes. 0: for idx and npy 1 + the largest label of the training split, for
  // synthetic 10, for the others what the data says.
  int classes = 0;
  // Uses only the first N samples of a split; 0: all.
  std::int64_t limit_train = 0;
  std::int64_t limit_test = 0;

  // images: height and width of the samples in pixels.
  int image_size = 224;

  // csv: whether the first row holds names; the separator, one byte; the target columns (exactly
  // one for a class) and the categorical feature columns, by name or number (-1 is the last).
  bool csv_header = true;
  std::string csv_separator = ",";
  std::vector<std::string> csv_targets = {"-1"};
  std::vector<std::string> csv_categorical;

  // text: "bytes" or the path of a tokenizer.json (not relative to `directory`), the tokens of a
  // sample, and the share of the training text that is the test split where no file is.
  std::string tokenizer = "bytes";
  std::int64_t text_length = 256;
  double text_test_fraction = 0.1;

  // text and tokens: whether tokens are hidden, to be filled in (data/masking.h), and by which one
  // of the tokenizer's; empty: by one more than it has.
  bool masked = false;
  std::string mask_token;

  // synthetic: whether samples are values or tokens, shape and number of samples, numbers in a
  // target of "values", and the seed.
  SampleType synthetic_samples = SampleType::kValues;
  std::vector<std::int64_t> synthetic_shape = {3, 32, 32};
  std::int64_t synthetic_train_size = 1024;
  std::int64_t synthetic_test_size = 256;
  int synthetic_target_width = 1;
  std::uint64_t synthetic_seed = 0;

  // "none"; "auto": mean and deviation of each channel measured on the training split; "given":
  // `mean` and `deviation`, one number per channel.
  std::string normalize = "none";
  std::vector<float> mean;
  std::vector<float> deviation;
  // Targets of "values": "none", or "auto": mean and deviation of each measured on the training
  // split. Applies to the targets of both splits.
  std::string normalize_targets = "none";

  // Random changes of training samples.
  AugmentOptions augment;
};

struct DataSets {
  std::unique_ptr<Dataset> train, test;
  Task task;
};

// Both splits. What the classes and categories are is taken from the training split. Throws Error
// for unknown options, for missing or malformed files, and for splits that do not fit each other.
DataSets open_data(const DataOptions& options);

// The test split alone, understood as by the training that learned `task`.
std::unique_ptr<Dataset> open_test_set(const DataOptions& options, const Task& task);

}  // namespace concord::data

#include "concord/data/open.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/data/loader.h"
#include "concord/data/test_data.h"
#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Debian's package dataset-fashion-mnist, which the tests need.
DataOptions fashion_mnist() {
  return {.kind = "idx", .directory = "/usr/share/datasets/fashion-mnist"};
}

TEST(OpenDataset, FashionMnistHasItsPublishedSizeAndStatistics) {
  const auto train = open_dataset(fashion_mnist(), Split::kTrain);
  const auto test = open_dataset(fashion_mnist(), Split::kTest);
  EXPECT_EQ(train->size(), 60000);
  EXPECT_EQ(test->size(), 10000);
  EXPECT_EQ(train->sample_shape(), (Shape{1, 28, 28}));
  EXPECT_EQ(test->classes(), 10);
  std::vector<int> counts(10, 0);
  for (const std::int32_t label : train->targets().labels)
    ++counts[static_cast<std::size_t>(label)];
  EXPECT_THAT(counts, testing::Each(6000));
  // Widely used values, measured over all of it.
  const Normalization all = measure_normalization(*train, train->size());
  EXPECT_NEAR(all.mean[0], 0.2860, 1e-4);
  EXPECT_NEAR(all.deviation[0], 0.3530, 1e-4);
  DataOptions options = fashion_mnist();
  options.normalize = "auto";
  const Normalization some = choose_normalization(options, *train);
  EXPECT_NEAR(some.mean[0], all.mean[0], 0.005);
  EXPECT_NEAR(some.deviation[0], all.deviation[0], 0.005);
}

TEST(OpenDataset, AnEpochOfFashionMnistUsesEverySampleOnce) {
  const auto train = open_dataset(fashion_mnist(), Split::kTrain);
  const Sampler sampler(train->size(), 512, 1, true);
  Loader loader(*train, sampler, Augmentation::none({}, train->sample_shape()),
                {.threads = 2, .end_step = sampler.steps_per_epoch()});
  std::vector<int> uses(60000, 0);
  while (loader.has_next()) {
    const Batch& batch = loader.next();
    for (std::size_t i = 0; i < batch.indices.size(); ++i) {
      ++uses[static_cast<std::size_t>(batch.indices[i])];
      ASSERT_EQ(batch.labels[i], train->label(batch.indices[i]));
    }
  }
  EXPECT_THAT(uses, testing::Each(1));
}

TEST(OpenDataset, LimitUsesTheFirstSamples) {
  DataOptions options = fashion_mnist();
  const auto whole = open_dataset(options, Split::kTest);
  options.limit_test = 7;
  const auto few = open_dataset(options, Split::kTest);
  EXPECT_EQ(few->size(), 7);
  EXPECT_EQ(few->classes(), 10);
  std::vector<float> a(784), b(784);
  few->read(6, a);
  whole->read(6, b);
  EXPECT_EQ(a, b);
  EXPECT_EQ(few->label(6), whole->label(6));
}

TEST(OpenDataset, CifarUsesTheNamesOfItsBinaryVersion) {
  const ScratchFolder folder;
  for (int i = 1; i <= 5; ++i) {
    folder.write(fmt::format("data_batch_{}.bin", i), cifar_record(CifarKind::k10, i, 'x'));
  }
  folder.write("test_batch.bin", cifar_record(CifarKind::k10, 9, 'x'));
  folder.write("train.bin", cifar_record(CifarKind::k100, 99, 'x'));
  DataOptions options{.kind = "cifar10", .directory = folder.path()};
  EXPECT_THAT(open_dataset(options, Split::kTrain)->targets().labels, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_EQ(open_dataset(options, Split::kTest)->label(0), 9);
  options.kind = "cifar100";
  EXPECT_EQ(open_dataset(options, Split::kTrain)->classes(), 100);
  EXPECT_THAT(error_of([&] { open_dataset(options, Split::kTest); }), HasSubstr("test.bin"));
}

TEST(OpenDataset, TestSplitsTakeTheirClassesFromTheTrainingSplit) {
  const ScratchFolder folder;
  const std::string image = png_bytes(test_image(4, 4));
  folder.write("train/ant/1.png", image);
  folder.write("train/bee/1.png", image);
  folder.write("test/bee/1.png", image);
  folder.write("train.csv", "x,kind\n1,ant\n2,bee\n");
  folder.write("test.csv", "x,kind\n1,bee\n");
  folder.write("train_features.npy", npy_bytes<float>("<f4", "(2, 1)", {1, 2}));
  folder.write("train_targets.npy", npy_bytes<std::int32_t>("<i4", "(2,)", {0, 1}));
  folder.write("test_features.npy", npy_bytes<float>("<f4", "(1, 1)", {2}));
  folder.write("test_targets.npy", npy_bytes<std::int32_t>("<i4", "(1,)", {1}));
  for (const char* kind : {"images", "csv", "npy"}) {
    DataOptions options{.kind = kind, .directory = folder.path()};
    EXPECT_EQ(open_dataset(options, Split::kTrain)->size(), 2) << kind;
    const auto test = open_dataset(options, Split::kTest);
    EXPECT_EQ(test->classes(), 2) << kind;
    EXPECT_EQ(test->label(0), 1) << kind;
  }
  DataOptions values{.kind = "npy", .directory = folder.path(), .target = "values"};
  EXPECT_EQ(open_dataset(values, Split::kTrain)->target_width(), 1);
}

TEST(OpenDataset, SyntheticSplitsDifferAndRepeat) {
  DataOptions options{.kind = "synthetic", .synthetic_shape = {50}};
  const auto train = open_dataset(options, Split::kTrain);
  const auto again = open_dataset(options, Split::kTrain);
  const auto test = open_dataset(options, Split::kTest);
  EXPECT_EQ(train->size(), 1024);
  EXPECT_EQ(test->size(), 256);
  std::vector<float> a(50), b(50), c(50);
  train->read(3, a);
  again->read(3, b);
  test->read(3, c);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
  EXPECT_EQ(train->targets().labels, again->targets().labels);
  const Normalization statistics = measure_normalization(*train);
  EXPECT_THAT(statistics.mean, testing::Each(testing::FloatNear(0, 0.16f)));
  EXPECT_THAT(statistics.deviation, testing::Each(testing::FloatNear(1, 0.12f)));
}

TEST(OpenDataset, RefusesOptionsThatContradictTheData) {
  const auto error = [](const DataOptions& options) {
    return error_of([&] { open_dataset(options, Split::kTest); });
  };
  EXPECT_THAT(error({.kind = "hdf5"}), HasSubstr("expected idx, cifar10"));
  EXPECT_THAT(error({.kind = "idx", .directory = "/nonexistent"}),
              HasSubstr("/nonexistent/train-labels-idx1-ubyte"));
  EXPECT_THAT(error({.kind = "synthetic", .target = "labels"}), HasSubstr("class or values"));
  EXPECT_THAT(error({.kind = "synthetic", .classes = -1}), HasSubstr("-1 classes"));
  EXPECT_THAT(error({.kind = "synthetic", .synthetic_shape = {3, -1}}), HasSubstr("[3, -1]"));
  DataOptions fashion = fashion_mnist();
  fashion.target = "values";
  EXPECT_THAT(error(fashion), HasSubstr("has class labels"));
  fashion = fashion_mnist();
  fashion.classes = 9;
  EXPECT_THAT(error(fashion), HasSubstr("expected 0 to 8 (9 classes)"));
}

TEST(ChooseNormalization, RefusesContradictions) {
  DataOptions options{.kind = "synthetic", .synthetic_shape = {2}};
  const auto train = open_dataset(options, Split::kTrain);
  EXPECT_TRUE(choose_normalization(options, *train).mean.empty());
  options.mean = {0, 1};
  options.deviation = {1, 2};
  EXPECT_THAT(error_of([&] { choose_normalization(options, *train); }), HasSubstr("'none'"));
  options.normalize = "given";
  EXPECT_THAT(choose_normalization(options, *train).mean, ElementsAre(0, 1));
  options.mean.clear();
  EXPECT_NE(error_of([&] { choose_normalization(options, *train); }), "");
  options.deviation.clear();
  options.normalize = "always";
  EXPECT_THAT(error_of([&] { choose_normalization(options, *train); }), HasSubstr("'always'"));
}

}  // namespace
}  // namespace concord::data

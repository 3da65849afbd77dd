#include "concord/data/open.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "concord/data/loader.h"
#include "concord/data/test_data.h"
#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

// Debian's package dataset-fashion-mnist, which the tests need.
DataOptions fashion_mnist() {
  return {.kind = "idx", .directory = "/usr/share/datasets/fashion-mnist"};
}

TEST(OpenData, FashionMnistHasItsPublishedSizeAndStatistics) {
  DataOptions options = fashion_mnist();
  options.normalize = "auto";
  const auto [train, test, task] = open_data(options);
  EXPECT_EQ(train->size(), 60000);
  EXPECT_EQ(test->size(), 10000);
  EXPECT_EQ(task.sample, (Shape{1, 28, 28}));
  EXPECT_EQ(task.outputs, 10);
  EXPECT_EQ(test->classes(), 10);
  std::vector<int> counts(10, 0);
  for (const std::int32_t label : train->targets().labels)
    ++counts[static_cast<std::size_t>(label)];
  EXPECT_THAT(counts, testing::Each(6000));
  // Widely used values, measured over all of it.
  const Normalization all = measure_normalization(*train, train->size());
  EXPECT_NEAR(all.mean[0], 0.2860, 1e-4);
  EXPECT_NEAR(all.deviation[0], 0.3530, 1e-4);
  EXPECT_NEAR(task.features.mean[0], all.mean[0], 0.005);
  EXPECT_NEAR(task.features.deviation[0], all.deviation[0], 0.005);
}

TEST(OpenData, AnEpochOfFashionMnistUsesEverySampleOnce) {
  const auto train = open_data(fashion_mnist()).train;
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

TEST(OpenData, LimitUsesTheFirstSamples) {
  DataOptions options = fashion_mnist();
  const auto whole = open_data(options).test;
  options.limit_test = 7;
  const auto few = open_data(options).test;
  EXPECT_EQ(few->size(), 7);
  EXPECT_EQ(few->classes(), 10);
  std::vector<float> a(784), b(784);
  few->read(6, a);
  whole->read(6, b);
  EXPECT_EQ(a, b);
  EXPECT_EQ(few->label(6), whole->label(6));
}

TEST(OpenData, CifarUsesTheNamesOfItsBinaryVersion) {
  const ScratchFolder folder;
  for (int i = 1; i <= 5; ++i) {
    folder.write(fmt::format("data_batch_{}.bin", i), cifar_record(CifarKind::k10, i, 'x'));
  }
  folder.write("test_batch.bin", cifar_record(CifarKind::k10, 9, 'x'));
  folder.write("train.bin", cifar_record(CifarKind::k100, 99, 'x'));
  DataOptions options{.kind = "cifar10", .directory = folder.path()};
  const DataSets sets = open_data(options);
  EXPECT_THAT(sets.train->targets().labels, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_EQ(sets.test->label(0), 9);
  options.kind = "cifar100";
  EXPECT_THAT(error_of([&] { open_data(options); }), HasSubstr("test.bin"));
  folder.write("test.bin", cifar_record(CifarKind::k100, 98, 'x'));
  EXPECT_EQ(open_data(options).task.outputs, 100);
}

TEST(OpenData, TestSplitsTakeTheirClassesFromTheTrainingSplit) {
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
  std::vector<Task> tasks;
  for (const char* kind : {"images", "csv", "npy"}) {
    const DataSets sets = open_data({.kind = kind, .directory = folder.path()});
    EXPECT_EQ(sets.train->size(), 2) << kind;
    EXPECT_EQ(sets.test->classes(), 2) << kind;
    EXPECT_EQ(sets.test->label(0), 1) << kind;
    tasks.push_back(sets.task);
  }
  const DataOptions values{.kind = "npy", .directory = folder.path(), .target = "values"};
  EXPECT_EQ(open_data(values).task.outputs, 1);

  // Whoever has the task needs no training split.
  std::filesystem::remove_all(folder.path() / "train");
  for (const char* file : {"train.csv", "train_features.npy", "train_targets.npy"}) {
    std::filesystem::remove(folder.path() / file);
  }
  for (const char* kind : {"images", "csv", "npy"}) {
    const DataOptions options{.kind = kind, .directory = folder.path()};
    const Task task = parse_task(to_json(tasks.front()), "manifest");
    const auto test = open_test_set(options, task);
    EXPECT_EQ(test->label(0), 1) << kind;
    tasks.erase(tasks.begin());
    EXPECT_NE(error_of([&] { open_data(options); }), "") << kind;
  }
}

TEST(OpenData, TargetsAreNormalizedInBothSplitsByTheTrainingSplit) {
  const ScratchFolder folder;
  folder.write("train.csv", "x,a,price\n1,5,1000\n2,5,3000\n");
  folder.write("test.csv", "x,a,price\n1,6,4000\n");
  const DataOptions options{.kind = "csv",
                            .directory = folder.path(),
                            .target = "values",
                            .csv_targets = {"price", "a"},
                            .normalize_targets = "auto"};
  const auto [train, test, task] = open_data(options);
  EXPECT_THAT(task.targets.mean, ElementsAre(5, 2000));  // in the order of the columns
  EXPECT_THAT(task.targets.deviation, ElementsAre(1, 1000));
  EXPECT_THAT(train->targets().values, ElementsAre(0, -1, 0, 1));
  EXPECT_THAT(test->targets().values, ElementsAre(1, 2));
  EXPECT_THAT(error_of([&] {
                open_data({.kind = "csv", .directory = folder.path(), .normalize_targets = "auto"});
              }),
              HasSubstr("expected targets that are values"));
}

TEST(OpenData, ProbabilitiesAreNumbersFrom0To1InBothSplits) {
  const ScratchFolder folder;
  const DataOptions options{.kind = "csv",
                            .directory = folder.path(),
                            .target = "probabilities",
                            .csv_targets = {"a", "b"}};
  folder.write("train.csv", "x,a,b\n1,0,1\n2,1,0.25\n");
  folder.write("test.csv", "x,a,b\n1,1,0\n");
  EXPECT_THAT(open_data(options).train->targets().values, ElementsAre(0, 1, 1, 0.25));
  folder.write("test.csv", "x,a,b\n1,1,0\n1,0,-1\n");
  EXPECT_THAT(error_of([&] { open_data(options); }),
              HasSubstr("the test data of kind csv in " + folder.path().string() +
                        ": target 1 of sample 1 is -1; model.loss = \"bce\" expects 0, 1 or"));
  folder.write("train.csv", "x,a,b\n1,1,no\n");
  EXPECT_THAT(error_of([&] { open_data(options); }),
              HasSubstr("if the column names classes, set model.loss = \"cross_entropy\""));
  const DataSets drawn = open_data({.kind = "synthetic", .target = "probabilities"});
  EXPECT_THAT(drawn.train->targets().values, Each(AnyOf(0, 1)));
  EXPECT_THAT(drawn.train->targets().values, AllOf(Contains(0), Contains(1)));
}

TEST(OpenData, BytesMeanInBothSplitsWhatTheyMeanInTheTrainingSplit) {
  const ScratchFolder folder;
  folder.write("train_targets.npy", npy_bytes<std::int32_t>("<i4", "(1,)", {0}));
  folder.write("test_targets.npy", npy_bytes<std::int32_t>("<i4", "(1,)", {0}));
  folder.write("test_features.npy", npy_bytes("|u1", "(1, 1, 2)", "\xff\x33"));
  const auto test_sample = [&] {
    const DataSets sets = open_data({.kind = "npy", .directory = folder.path()});
    std::vector<float> sample(2);
    sets.test->read(0, sample);
    return sample;
  };
  folder.write("train_features.npy", npy_bytes<float>("<f4", "(1, 1, 2)", {1, 2}));
  EXPECT_THAT(test_sample(), ElementsAre(255, 51));
  folder.write("train_features.npy", npy_bytes("|u1", "(1, 1, 2)", "ab"));
  EXPECT_THAT(test_sample(), ElementsAre(1, testing::FloatEq(0.2f)));
}

TEST(OpenData, NamesAreUtf8) {
  const ScratchFolder folder;
  folder.write("train.csv", "x,kind\n1,caf\xe9\n");
  EXPECT_THAT(error_of([&] { open_data({.kind = "csv", .directory = folder.path()}); }),
              HasSubstr("is not UTF-8"));
}

TEST(OpenData, SplitsThatDoNotFitAreRefused) {
  const ScratchFolder folder;
  folder.write("train_features.npy", npy_bytes<float>("<f4", "(2, 1)", {1, 2}));
  folder.write("train_targets.npy", npy_bytes<float>("<f4", "(2, 1)", {0, 1}));
  folder.write("test_features.npy", npy_bytes<float>("<f4", "(1, 2)", {2, 3}));
  folder.write("test_targets.npy", npy_bytes<float>("<f4", "(1, 1)", {1}));
  const DataOptions options{.kind = "npy", .directory = folder.path(), .target = "values"};
  EXPECT_THAT(error_of([&] { open_data(options); }),
              HasSubstr("training set are [1], of the test"));
  folder.write("test_features.npy", npy_bytes<float>("<f4", "(1, 1)", {2}));
  folder.write("test_targets.npy", npy_bytes<float>("<f4", "(1, 2)", {1, 2}));
  EXPECT_THAT(error_of([&] { open_data(options); }),
              HasSubstr("1 values, of the test set 2 values"));
}

TEST(OpenData, SyntheticSplitsDifferAndRepeat) {
  const DataOptions options{.kind = "synthetic", .synthetic_shape = {50}};
  const auto [train, test, task] = open_data(options);
  const auto again = open_data(options).train;
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

TEST(OpenData, MasksByOneTokenMoreOrByANamedOne) {
  const ScratchFolder folder;
  folder.write("train.txt", std::string(100, 'x'));
  DataOptions options{.kind = "text", .directory = folder.path(), .text_length = 4, .masked = true};
  const auto task = [&] { return open_data(options).task; };
  EXPECT_EQ(task().mask, 256);
  EXPECT_EQ(task().outputs, 257);
  options.mask_token = "x";
  EXPECT_EQ(task().mask, 'x');
  EXPECT_EQ(task().outputs, 256);
  options.mask_token = "[MASK]";
  EXPECT_THAT(error_of(task), HasSubstr("data.mask_token = \"[MASK]\": bytes has no such token"));
  options.masked = false;
  EXPECT_EQ(task().mask, std::nullopt);
}

TEST(OpenData, RefusesOptionsThatContradictTheData) {
  const auto error = [](const DataOptions& options) {
    return error_of([&] { open_data(options); });
  };
  EXPECT_THAT(error({.kind = "hdf5"}), HasSubstr("expected idx, cifar10"));
  EXPECT_THAT(error({.kind = "idx", .directory = "/nonexistent"}),
              HasSubstr("data.dir = \"/nonexistent\": there is no such folder"));
  EXPECT_THAT(error({.kind = "idx", .directory = "/"}), HasSubstr("/train-labels-idx1-ubyte"));
  EXPECT_THAT(error({.kind = "synthetic", .target = "labels"}),
              HasSubstr("class, values or probabilities"));
  EXPECT_THAT(error({.kind = "synthetic", .classes = -1}), HasSubstr("-1 classes"));
  EXPECT_THAT(error({.kind = "synthetic", .synthetic_shape = {3, -1}}), HasSubstr("[3, -1]"));
  DataOptions fashion = fashion_mnist();
  fashion.target = "values";
  EXPECT_THAT(error(fashion), HasSubstr("has class labels: set model.loss = \"cross_entropy\""));
  fashion = fashion_mnist();
  fashion.classes = 9;
  EXPECT_THAT(error(fashion), HasSubstr("expected 0 to 8 (9 classes)"));
}

TEST(OpenData, RefusesContradictionsOfNormalization) {
  DataOptions options{.kind = "synthetic", .synthetic_shape = {2}};
  const auto features = [&] { return open_data(options).task.features; };
  EXPECT_TRUE(features().none());
  options.mean = {0, 1};
  options.deviation = {1, 2};
  EXPECT_THAT(error_of(features), HasSubstr("'none'"));
  options.normalize = "given";
  EXPECT_THAT(features().mean, ElementsAre(0, 1));
  options.mean.clear();
  EXPECT_NE(error_of(features), "");
  options.deviation.clear();
  options.normalize = "always";
  EXPECT_THAT(error_of(features), HasSubstr("'always'"));
}

}  // namespace
}  // namespace concord::data

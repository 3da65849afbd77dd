// Evaluation and prediction by what a checkpoint says, without the data it learned from.
#include <gtest/gtest.h>

#include <cmath>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/text.h"
#include "concord/kernels/cpu/instruction_set.h"
#include "concord/train/trainer.h"

namespace concord::train {
namespace {

// A table whose price follows from its other columns, in units far from 1.
class InferenceTest : public testing::Test {
 protected:
  InferenceTest()
      : folder_(std::filesystem::path(testing::TempDir()) /
                (std::string("concord_inference_") +
                 testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    std::string table = "size,colour,price,weight\n";
    for (int i = 0; i < 64; ++i) {
      table += fmt::format("{},{},{},{}\n", i, i % 2 == 0 ? "red" : "blue", price(i, i % 2 == 0),
                           1e-3 * i);
    }
    write_file_atomically(folder_ / "train.csv", table);
    write_file_atomically(folder_ / "test.csv", table);
  }
  ~InferenceTest() override { std::filesystem::remove_all(folder_); }

  static double price(double size, bool red) { return 1e6 + 2e3 * size + (red ? 5e4 : 0); }

  Config config(const std::string& keys) const {
    return parse_config(
        fmt::format("[output]\ndir = {}\ntensorboard = false\n[data]\nkind = \"csv\"\n"
                    "categorical = [\"colour\"]\ndir = {}\n[train]\nbatch = 16\nthreads = 1\n{}",
                    quote((folder_ / "run").string()), quote(folder_.string()), keys),
        "test.toml");
  }
  void train_quietly(const Config& config) const {
    TrainObserver observer;
    train(config, {}, observer);
  }
  std::vector<Prediction> predict_table(const Config& config, const std::string& table) const {
    write_file_atomically(folder_ / "new.csv", table);
    return predict(config, folder_ / "run", {folder_ / "new.csv"});
  }

  std::filesystem::path folder_;
};

constexpr const char* kRegression = R"(
epochs = 60
[model]
hidden = []
loss = "mse"
[optimizer]
name = "adam"
learning_rate = 0.05
)";

TEST_F(InferenceTest, RegressionPredictsInTheUnitsOfItsTargets) {
  Config regression = config(kRegression);
  regression.data.target = {"price", "weight"};
  regression.data.normalize_targets = "auto";
  train_quietly(regression);
  std::filesystem::remove(folder_ / "train.csv");
  std::filesystem::remove(folder_ / "test.csv");
  const auto predictions = predict_table(regression, "size,colour\n10,red\n20.5,blue\n");
  ASSERT_EQ(predictions.size(), 2u);
  EXPECT_NEAR(predictions[0].values[0], price(10, true), 500);
  EXPECT_NEAR(predictions[0].values[1], 0.010, 0.001);
  EXPECT_NEAR(predictions[1].values[0], price(20.5, false), 500);
  EXPECT_NEAR(predictions[1].values[1], 0.0205, 0.001);
  EXPECT_EQ(predictions[1].label, -1);
}

TEST_F(InferenceTest, AbsoluteAndHuberLossesPredictInTheUnitsOfTheTargets) {
  for (const char* loss : {"l1", "huber"}) {
    Config regression = config(kRegression);
    regression.model.loss = loss;
    regression.data.target = {"price"};
    regression.data.normalize_targets = "auto";
    regression.schedule.name = "linear";
    std::filesystem::remove_all(folder_ / "run");
    TrainObserver observer;
    const Summary trained = train(regression, {}, observer);
    EXPECT_LT(trained.accuracy, 0) << loss;
    EXPECT_LT(trained.loss, 0.02) << loss;
    EXPECT_EQ(evaluate(regression, folder_ / "run").loss, trained.loss) << loss;
    const auto predictions = predict_table(regression, "size,colour,weight\n10,red,0.01\n");
    EXPECT_NEAR(predictions.at(0).values[0], price(10, true), 1000) << loss;
  }
}

TEST_F(InferenceTest, BinaryCrossEntropyPredictsProbabilities) {
  const auto is_large = [](int i) { return i >= 32; };
  const auto is_red = [](int i) { return i % 2 == 0; };
  std::string table = "size,large,colour,red\n";
  for (int i = 0; i < 64; ++i) {
    table +=
        fmt::format("{},{:d},{},{:d}\n", i, is_large(i), is_red(i) ? "red" : "blue", is_red(i));
  }
  write_file_atomically(folder_ / "train.csv", table);
  write_file_atomically(folder_ / "test.csv", table);
  for (const char* precision : {"f32", "bf16"}) {
    if (precision == std::string("bf16") && !cpu::has_bf16()) continue;
    Config binary = config(kRegression);
    binary.model.loss = "bce";
    binary.data.target = {"large", "red"};
    binary.train.precision = precision;
    std::filesystem::remove_all(folder_ / "run");
    TrainObserver observer;
    const Summary trained = train(binary, {}, observer);
    EXPECT_GT(trained.accuracy, 0.9) << precision;

    // Loss and accuracy follow from the probabilities, whose columns have names.
    const auto predictions = predict_table(binary, table);
    ASSERT_EQ(predictions.size(), 64u);
    double loss = 0, correct = 0;
    for (int i = 0; i < 64; ++i) {
      const Prediction& prediction = predictions[static_cast<std::size_t>(i)];
      EXPECT_EQ(prediction.names, (std::vector<std::string>{"large", "red"}));
      EXPECT_EQ(prediction.label, -1);
      for (const auto& [p, target] :
           {std::pair{prediction.values[0], is_large(i)}, {prediction.values[1], is_red(i)}}) {
        loss -= std::log(target ? p : 1 - p) / 128;
        correct += (p > 0.5) == target;
      }
    }
    EXPECT_NEAR(trained.loss, loss, 1e-5) << precision;
    EXPECT_EQ(trained.accuracy, correct / 128) << precision;
  }
}

TEST_F(InferenceTest, ClassesHaveTheirNamesAndRowsMayBeMoreThanABatch) {
  Config classes = config("epochs = 30\n[optimizer]\nlearning_rate = 0.1\n");
  classes.data.categorical = {};
  classes.data.target = {"colour"};
  // The price tells the colour once its size is known.
  train_quietly(classes);
  std::filesystem::remove(folder_ / "train.csv");
  std::filesystem::remove(folder_ / "test.csv");
  std::string table = "size,price,weight\n";
  for (int i = 0; i < 37; ++i) {
    table += fmt::format("{},{},{}\n", i, price(i, i % 3 == 0), 1e-3 * i);
  }
  const auto predictions = predict_table(classes, table);
  ASSERT_EQ(predictions.size(), 37u);
  int right = 0;
  for (int i = 0; i < 37; ++i) {
    const Prediction& prediction = predictions[static_cast<std::size_t>(i)];
    right += prediction.class_name == (i % 3 == 0 ? "red" : "blue");
    EXPECT_NEAR(prediction.values[0] + prediction.values[1], 1, 1e-9);
  }
  EXPECT_GE(right, 35);
}

TEST_F(InferenceTest, EvaluationNeedsTheTestSetAlone) {
  const Config classes = config("epochs = 2\n[model]\nloss = \"mse\"\n");
  TrainObserver observer;
  const Summary trained = train(classes, {}, observer);
  std::filesystem::remove(folder_ / "train.csv");
  EXPECT_EQ(evaluate(classes, folder_ / "run").loss, trained.loss);
}

TEST_F(InferenceTest, ResumeRefusesOtherDataOfTheSameSize) {
  const Config classes = config("epochs = 2\n[model]\nloss = \"mse\"\n");
  train_quietly(classes);
  std::string table = read_file(folder_ / "train.csv");
  for (std::size_t at = 0; (at = table.find("red", at)) != std::string::npos;) {
    table.replace(at, 3, "tan");
  }
  write_file_atomically(folder_ / "train.csv", table);
  write_file_atomically(folder_ / "test.csv", table);
  TrainObserver observer;
  try {
    train(classes, {.resume = true}, observer);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("another shape, classes, columns"), std::string::npos);
  }
}

TEST_F(InferenceTest, ErrorsNameTheFile) {
  train_quietly(config("epochs = 1\n[model]\nloss = \"mse\"\n"));
  const auto error = [&](const std::string& table) -> std::string {
    try {
      predict_table(config("[model]\nloss = \"mse\"\n"), table);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(error("size,colour,price\n1,green,2\n").find("new.csv:2: column 'colour'"),
            std::string::npos);
  EXPECT_NE(error("size\n1\n").find("new.csv: 1 columns"), std::string::npos);
}

}  // namespace
}  // namespace concord::train

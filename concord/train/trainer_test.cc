// Whole runs: the same bits twice, after a stop, and after damage; numbers that are not finite.
#include "concord/train/trainer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <fstream>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/text.h"
#include "concord/data/test_data.h"
#include "concord/train/checkpoint.h"
#include "concord/train/run_folder.h"

namespace concord::train {
namespace {

// Twelve steps: two epochs of five full batches and one of four samples. Everything that could
// depend on history is on: dropout, augmentation, running statistics, Adam's moments, a schedule.
constexpr const char* kConfig = R"(
[model]
name = "resnet_small"
width = 8
blocks = [1, 1]
[data]
kind = "synthetic"
shape = [1, 8, 8]
classes = 4
samples = 84
normalize = "none"
crop_padding = 1
horizontal_flip = true
[train]
batch = 16
leaves = 4
epochs = 2
kernels = "default"
threads = 1
log_every = 1
[optimizer]
name = "adamw"
learning_rate = 0.01
weight_decay = 0.01
clip_norm = 1.0
[schedule]
name = "one_cycle"
[output]
keep_checkpoints = 3
)";

// Without a norm that would hide it, the second step overflows.
const std::vector<std::string> kExplode = {"model.name=mlp",
                                           "model.width=16",
                                           "model.blocks=[3, 3, 3]",
                                           "optimizer.name=sgd",
                                           "optimizer.clip_norm=0",
                                           "schedule.name=constant",
                                           "optimizer.learning_rate=1e30"};

class TrainerTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::path(testing::TempDir()) /
                 (std::string("concord_trainer_") +
                  testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  Config config(const std::string& run, std::vector<std::string> overrides = {}) const {
    overrides.push_back("output.dir=" + (directory_ / run).string());
    return parse_config(kConfig, "test.toml", overrides);
  }
  std::filesystem::path checkpoints(const std::string& run) const {
    return directory_ / run / "checkpoints";
  }

  std::filesystem::path directory_;
};

// Asks for a stop after a number of steps, and keeps what it was told.
class Observer : public TrainObserver {
 public:
  explicit Observer(std::int64_t stop_after = -1) : stop_after_(stop_after) {}
  void stepped(const Progress& progress) override {
    if (progress.step == stop_after_) stop = true;
  }
  void message(const std::string& text) override { messages.push_back(text); }

  std::atomic<bool> stop = false;
  std::vector<std::string> messages;

 private:
  std::int64_t stop_after_;
};

Summary run(const Config& config, std::int64_t stop_after = -1, bool resume = false) {
  Observer observer(stop_after);
  return train(config, {.resume = resume, .stop = &observer.stop}, observer);
}

std::string error_of(const Config& config, bool resume = false) {
  try {
    run(config, -1, resume);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_F(TrainerTest, SameConfigurationTwiceGivesTheSameBits) {
  const Summary first = run(config("a"));
  EXPECT_EQ(first.step, 12);
  EXPECT_EQ(first.weights_hash, run(config("b")).weights_hash);
  EXPECT_NE(first.weights_hash, run(config("c", {"train.seed=2"})).weights_hash);
}

TEST_F(TrainerTest, SaysWhatTheDataAndTheLengthOfTheRunFallShortOf) {
  const auto messages = [&](int batch, int warmup) {
    Observer observer;
    train(config(fmt::format("{}", batch),
                 {"schedule.name=linear", "train.epochs=1", fmt::format("train.batch={}", batch),
                  fmt::format("schedule.warmup_steps={}", warmup)}),
          {}, observer);
    return observer.messages;
  };
  EXPECT_TRUE(messages(84, 1).empty());
  const std::vector<std::string> said = messages(85, 2);
  ASSERT_EQ(said.size(), 2u);
  EXPECT_NE(said[0].find("train.batch = 85, but the training set has 84 samples"),
            std::string::npos);
  EXPECT_NE(said[1].find("schedule.warmup_steps = 2, but the run ends after step 1:"),
            std::string::npos);
}

TEST_F(TrainerTest, StopAndResumeMidEpochGivesTheSameBits) {
  const Summary unbroken = run(config("a"));
  const Summary stopped = run(config("b"), 3);
  EXPECT_TRUE(stopped.interrupted);
  EXPECT_EQ(stopped.step, 3);
  run(config("b"), 8, /*resume=*/true);
  const Summary resumed = run(config("b"), -1, /*resume=*/true);
  EXPECT_EQ(resumed.step, 12);
  EXPECT_FALSE(resumed.interrupted);
  EXPECT_EQ(resumed.weights_hash, unbroken.weights_hash);

  // Every training step was recorded once, in order.
  std::ifstream metrics(directory_ / "b" / "metrics.jsonl");
  std::string line;
  std::int64_t expected = 0;
  while (std::getline(metrics, line)) {
    if (line.find("\"train\"") == std::string::npos) continue;
    EXPECT_NE(line.find(fmt::format("\"step\":{},", ++expected)), std::string::npos) << line;
  }
  EXPECT_EQ(expected, 12);
}

// What each optimizer remembers is in the checkpoint, as are its steps.
TEST_F(TrainerTest, EveryOptimizerResumesToTheSameBits) {
  for (const std::string name : {"lion", "rmsprop", "adagrad", "lars", "lamb", "muon"}) {
    const std::vector<std::string> overrides = {
        "optimizer.name=" + name, "optimizer.learning_rate=0.001",
        "optimizer.rates=['layer1=0.5', 'fc=2']", "schedule.name=polynomial"};
    const Summary unbroken = run(config(name, overrides));
    EXPECT_EQ(unbroken.step, 12);
    run(config(name + "_stopped", overrides), 7);
    const Summary resumed = run(config(name + "_stopped", overrides), -1, /*resume=*/true);
    EXPECT_EQ(resumed.weights_hash, unbroken.weights_hash) << name;
  }
}

TEST_F(TrainerTest, AveragesAreWhatIsEvaluatedAndHandedOut) {
  const std::vector<std::string> overrides = {"optimizer.ema_decay=0.9"};
  const Summary averaged = run(config("a", overrides)), plain = run(config("b"));
  EXPECT_NE(averaged.loss, plain.loss);
  const Summary evaluated = evaluate(config("a", overrides), directory_ / "a");
  EXPECT_EQ(evaluated.loss, averaged.loss);
  EXPECT_EQ(evaluated.weights_hash, averaged.weights_hash);

  const Checkpoint with = load_checkpoint(directory_ / "a"),
                   without = load_checkpoint(directory_ / "b");
  EXPECT_EQ(with.weights.names(), without.weights.names());
  EXPECT_TRUE(std::ranges::equal(with.optimizer.bytes("fc.weight.trained"),
                                 without.weights.bytes("fc.weight")));
  EXPECT_FALSE(
      std::ranges::equal(with.weights.bytes("fc.weight"), without.weights.bytes("fc.weight")));
}

TEST_F(TrainerTest, AveragesAreResumedToTheSameBits) {
  const std::vector<std::string> overrides = {"optimizer.ema_decay=0.9"};
  const Summary unbroken = run(config("a", overrides));
  run(config("b", overrides), 7);
  EXPECT_EQ(run(config("b", overrides), -1, /*resume=*/true).weights_hash, unbroken.weights_hash);
}

TEST_F(TrainerTest, AveragesStartFromGivenWeights) {
  run(config("a"), 1);
  const std::filesystem::path given = checkpoints("a") / checkpoint_name(1) / "weights.safetensors";
  run(config("b",
             {"model.weights=" + given.string(), "train.max_steps=1", "optimizer.ema_decay=0.9"}));
  const Checkpoint after = load_checkpoint(directory_ / "b");
  const auto floats = [](std::span<const std::byte> bytes) {
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  };
  const auto file = formats::SafetensorsFile::open(given);
  const std::vector<float> before = floats(file.bytes("fc.weight"));
  const std::vector<float> trained = floats(after.optimizer.bytes("fc.weight.trained"));
  const std::vector<float> averages = floats(after.weights.bytes("fc.weight"));
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_NEAR(averages[i], 0.9 * before[i] + 0.1 * trained[i], 1e-7);
  }
}

TEST_F(TrainerTest, RecomputingMayChangeWhereARunIsResumed) {
  const Summary unbroken = run(config("a"));
  run(config("b"), 7);
  const Config resumed = config("b", {"train.recompute=full"});
  EXPECT_EQ(run(resumed, -1, /*resume=*/true).weights_hash, unbroken.weights_hash);
}

TEST_F(TrainerTest, LoaderThreadsDoNotChangeTheBits) {
  EXPECT_EQ(run(config("a", {"data.loader_threads=1"})).weights_hash,
            run(config("b", {"data.loader_threads=3"})).weights_hash);
}

TEST_F(TrainerTest, DamagedCheckpointIsPassedOverForTheOneBefore) {
  const Summary unbroken = run(config("a"));
  run(config("b", {"train.checkpoint_every_steps=3"}), 8);
  const std::filesystem::path newest =
      checkpoints("b") / checkpoint_name(8) / "weights.safetensors";
  std::string bytes = read_file(newest);
  bytes[bytes.size() / 2] ^= 1;
  write_file_atomically(newest, bytes);
  testing::internal::CaptureStderr();
  const Summary resumed = run(config("b", {"train.checkpoint_every_steps=3"}), -1, /*resume=*/true);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find(newest.string()), std::string::npos) << log;
  EXPECT_EQ(resumed.weights_hash, unbroken.weights_hash);
}

TEST_F(TrainerTest, EvaluationOfACheckpointRepeatsWhatTrainingMeasured) {
  const Summary trained = run(config("a"));
  const Summary evaluated = evaluate(config("a"), directory_ / "a");
  EXPECT_EQ(evaluated.loss, trained.loss);
  EXPECT_EQ(evaluated.accuracy, trained.accuracy);
  EXPECT_EQ(evaluated.weights_hash, trained.weights_hash);
}

TEST_F(TrainerTest, StartsFromGivenWeights) {
  run(config("a"), 1);
  const std::string weights =
      (checkpoints("a") / checkpoint_name(1) / "weights.safetensors").string();
  const Summary first = run(config("b", {"model.weights=" + weights, "train.max_steps=1"}));
  const Summary scratch = run(config("c", {"train.max_steps=1"}));
  EXPECT_NE(first.train_loss, scratch.train_loss);
  const std::string error = error_of(config("d", {"model.weights=" + weights, "model.width=16"}));
  EXPECT_NE(error.find("conv1.weight"), std::string::npos) << error;
  EXPECT_NE(error.find("[8, 1, 3, 3]"), std::string::npos) << error;
  EXPECT_NE(error.find("[16, 1, 3, 3]"), std::string::npos) << error;
}

TEST_F(TrainerTest, NumberThatIsNotFiniteStopsWithStepAndOpAndKeepsTheWeights) {
  const std::string error = error_of(config("a", kExplode));
  EXPECT_NE(error.find("step 2"), std::string::npos) << error;
  EXPECT_NE(error.find("of layer fc"), std::string::npos) << error;
  EXPECT_NE(error.find("train.nonfinite"), std::string::npos) << error;
  EXPECT_EQ(load_latest(checkpoints("a"))->info.step, 1);
}

TEST_F(TrainerTest, NumberThatIsNotFiniteCanBeSkipped) {
  std::vector<std::string> skip = kExplode;
  skip.insert(skip.end(), {"train.nonfinite=skip", "train.max_steps=4"});
  Observer observer;
  // The weights of the first step are finite, but what they compute is not.
  try {
    train(config("a", skip), {}, observer);
    ADD_FAILURE() << "a test loss that is not finite is an error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("the loss on the test set is"), std::string::npos);
  }
  EXPECT_EQ(load_latest(checkpoints("a"))->info.step, 4);
  ASSERT_EQ(observer.messages.size(), 3u);
  EXPECT_NE(observer.messages[0].find("skipped"), std::string::npos);
}

TEST_F(TrainerTest, SkippingEveryStepEnds) {
  std::vector<std::string> skip = kExplode;
  skip.insert(skip.end(), {"train.nonfinite=skip", "train.epochs=100"});
  const std::string error = error_of(config("a", skip));
  EXPECT_NE(error.find("step 102"), std::string::npos) << error;
  EXPECT_NE(error.find("training no longer moves"), std::string::npos) << error;
}

TEST_F(TrainerTest, StopDuringAnEvaluationSavesAtOnce) {
  // Stops in the evaluation of the first epoch: the observer's last step of it is the sixth.
  const Summary stopped = run(config("a"), 6);
  EXPECT_TRUE(stopped.interrupted);
  EXPECT_EQ(load_latest(checkpoints("a"))->info.step, 6);
  const std::string metrics = read_file(directory_ / "a" / "metrics.jsonl");
  EXPECT_EQ(metrics.find("\"test\""), std::string::npos);
  EXPECT_EQ(run(config("a"), -1, /*resume=*/true).weights_hash, run(config("b")).weights_hash);
}

TEST_F(TrainerTest, StopDuringTheLastEvaluationIsMadeGoodByResuming) {
  EXPECT_TRUE(run(config("a"), 12).interrupted);
  const Summary resumed = run(config("a"), -1, /*resume=*/true);
  EXPECT_FALSE(resumed.interrupted);
  EXPECT_FALSE(resumed.train_loss);
  EXPECT_EQ(resumed.loss, run(config("b")).loss);
}

TEST_F(TrainerTest, MetricsOfAResumedRunAreThoseOfAnUnbrokenOne) {
  const auto losses = [&](const std::string& run) {
    std::ifstream metrics(directory_ / run / "metrics.jsonl");
    std::vector<std::string> result;
    for (std::string line; std::getline(metrics, line);) {
      if (line.find("\"train\"") == std::string::npos) continue;
      result.push_back(line.substr(0, line.find("\"learning_rate\"")));
    }
    return result;
  };
  const std::vector<std::string> every_four = {"train.log_every=4"};
  run(config("a", every_four));
  run(config("b", every_four), 6);
  run(config("b", every_four), -1, /*resume=*/true);
  EXPECT_EQ(losses("a").size(), 3u);
  EXPECT_EQ(losses("a"), losses("b"));
}

// Limits the size of files from step 1 on, as a full disk would, until it is told of
// `last_failure`.
class FullDisk : public TrainObserver {
 public:
  explicit FullDisk(std::string last_failure)
      : last_failure_(std::move(last_failure)), handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
  }
  ~FullDisk() override {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  void stepped(const Progress& progress) override {
    const rlimit limit{100, before_.rlim_max};
    if (progress.step == 1) ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  void message(const std::string& text) override {
    messages.push_back(text);
    if (text.find(last_failure_) != std::string::npos) ::setrlimit(RLIMIT_FSIZE, &before_);
  }

  std::vector<std::string> messages;

 private:
  std::string last_failure_;
  void (*handler_)(int);
  rlimit before_;
};

TEST_F(TrainerTest, TrainingOutlivesADiskThatIsFullForAWhile) {
  FullDisk disk("step 8 was not saved");
  const std::vector<std::string> overrides = {
      "train.checkpoint_every_steps=4", "train.eval_every_epochs=2", "output.tensorboard=false"};
  EXPECT_EQ(train(config("a", overrides), {}, disk).weights_hash, run(config("b")).weights_hash);
  ASSERT_EQ(disk.messages.size(), 3u);
  EXPECT_NE(disk.messages[0].find("records of the metrics are lost"), std::string::npos);
  EXPECT_NE(disk.messages[1].find("step 4 was not saved"), std::string::npos);
  EXPECT_NE(disk.messages[1].find("training goes on"), std::string::npos);
  EXPECT_NE(disk.messages[2].find("step 8 was not saved"), std::string::npos);
  EXPECT_EQ(load_latest(checkpoints("a"))->info.step, 12);
}

TEST_F(TrainerTest, WeightsThatCannotBeSavedAtTheEndAreAnError) {
  FullDisk disk("never");
  try {
    train(config("a"), {}, disk);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("step 12 was not saved"), std::string::npos);
  }
}

TEST_F(TrainerTest, StopAfterAnEvaluationIsAnInterruption) {
  class StopAtEvaluation : public TrainObserver {
   public:
    void evaluated(const Progress&, const Evaluation&) override { stop = true; }
    std::atomic<bool> stop = false;
  } observer;
  const Summary stopped = train(config("a"), {.stop = &observer.stop}, observer);
  EXPECT_EQ(stopped.step, 6);
  EXPECT_TRUE(stopped.interrupted);
  EXPECT_GE(stopped.accuracy, 0);
}

TEST_F(TrainerTest, WeightsThatAreNotFiniteAreNamedAndNotSaved) {
  std::vector<std::string> overrides = kExplode;
  overrides.push_back("optimizer.learning_rate=1e300");
  const std::string error = error_of(config("a", overrides));
  EXPECT_NE(error.find("step 2"), std::string::npos) << error;
  EXPECT_NE(error.find("\"fc1.weight\", as the step before left it"), std::string::npos) << error;
  EXPECT_FALSE(load_latest(checkpoints("a")));
}

TEST_F(TrainerTest, EvaluationRefusesAnotherNetworkThatHasTheSameTensors) {
  std::vector<std::string> mlp = kExplode;
  mlp.push_back("optimizer.learning_rate=0.1");
  run(config("a", mlp));
  mlp.push_back("model.activation=tanh");
  try {
    evaluate(config("a", mlp), directory_ / "a");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "model.activation = \"tanh\", but the checkpoint's model was trained with "
                 "\"relu\": set it so");
  }
}

// The second file of each class decodes; the first of those in `damaged` does not.
TEST_F(TrainerTest, DataThatFailsInMidRunLosesNoStep) {
  const auto error_with = [&](const std::string& run, const std::string& damaged) {
    const std::string good = data::png_bytes({8, 8, std::vector<std::uint8_t>(8 * 8 * 3, 100)});
    for (const char* split : {"train", "test"}) {
      const auto folder = directory_ / run / "data" / split / "ant";
      std::filesystem::create_directories(folder);
      write_file_atomically(folder / "1.png", split == damaged ? good.substr(0, 60) : good);
      write_file_atomically(folder / "2.png", good);
    }
    Config images = config(run, {"data.kind=images", "data.image_size=8", "data.samples=1024",
                                 "data.shape=[1, 28, 28]", "data.classes=10"});
    images.data.dir = (directory_ / run / "data").string();
    images.output.dir = (directory_ / run / "run").string();
    return error_of(images);
  };
  const std::string training = error_with("a", "train"), evaluation = error_with("b", "test");
  EXPECT_NE(training.find("1.png"), std::string::npos) << training;
  EXPECT_NE(training.find("The weights of step 0 are saved"), std::string::npos) << training;
  EXPECT_NE(evaluation.find("1.png"), std::string::npos) << evaluation;
  EXPECT_NE(evaluation.find("The weights of step 1 are saved"), std::string::npos) << evaluation;
}

// Checkpoints are due at steps that are not evaluated; the best model is kept all the same.
TEST_F(TrainerTest, KeepsTheBestModelWhereverCheckpointsAreDue) {
  run(config("a", {"train.checkpoint_every_steps=5", "output.keep_checkpoints=1", "train.epochs=4",
                   "optimizer.learning_rate=0.1"}));
  const std::optional<Checkpoint> best = load_best(checkpoints("a"));
  ASSERT_TRUE(best);
  std::ifstream metrics(directory_ / "a" / "metrics.jsonl");
  double highest = -1;
  for (std::string line; std::getline(metrics, line);) {
    const auto record = nlohmann::json::parse(line);
    if (record.at("kind") == "test")
      highest = std::max(highest, record.at("accuracy").get<double>());
  }
  EXPECT_EQ(best->info.score, highest);
  EXPECT_LT(best->info.step, 24);  // where the last step's is kept anyway
}

// A text in which every token follows from its neighbours, so that a small transformer learns it by
// heart.
class AlphabetTest : public TrainerTest {
 protected:
  void SetUp() override {
    TrainerTest::SetUp();
    std::filesystem::create_directories(directory_);
    std::string text;
    for (int i = 0; i < 60; ++i) text += "abcdefghijklmnop";
    write_file_atomically(directory_ / "train.txt", text);
  }

  Config config(const std::string& model, const std::string& run, const std::string& train = "") {
    return parse_config(
        fmt::format("[model]\nname = \"{}\"\nlayers = 1\nwidth = 16\nheads = 2\ndropout = 0.01\n"
                    "[data]\nkind = \"text\"\ndir = {}\nlength = 16\n"
                    "[train]\nbatch = 8\nepochs = 12\nthreads = 1\n{}\n"
                    "[optimizer]\nname = \"adamw\"\nlearning_rate = 0.02\n[output]\ndir = {}\n",
                    model, quote(directory_.string()), train, quote((directory_ / run).string())),
        "alphabet.toml");
  }

  void expect_learns_and_resumes(const std::string& model) {
    const Summary whole = run(config(model, "a"));
    EXPECT_LT(whole.loss, 0.2);
    EXPECT_GT(whole.accuracy, 0.95);
    run(config(model, "b"), 20);
    EXPECT_EQ(run(config(model, "b"), -1, /*resume=*/true).weights_hash, whole.weights_hash);
    EXPECT_EQ(evaluate(config(model, "a"), directory_ / "a").loss, whole.loss);
    EXPECT_THROW(predict(config(model, "a"), directory_ / "a", {directory_ / "train.txt"}), Error);
  }
};

TEST_F(AlphabetTest, GptLearnsATextAndResumesToTheSameBits) { expect_learns_and_resumes("gpt"); }
TEST_F(AlphabetTest, BertFillsMasksAndResumesToTheSameBits) { expect_learns_and_resumes("bert"); }

// Masks and dropout are drawn by the number of the sample, and each sample counts as much as any
// other.
TEST_F(AlphabetTest, HowABatchIsCutChangesTheLossByRoundingAlone) {
  for (const std::string model : {"gpt", "bert"}) {
    const auto loss = [&](const std::string& name, const std::string& cut) {
      return run(config(model, model + name, "max_steps = 5\n" + cut)).train_loss.value();
    };
    EXPECT_NEAR(loss("cut", "leaves = 2\nmicrobatch = 3"), loss("whole", "leaves = 1"), 1e-5);
  }
}

TEST_F(TrainerTest, SaysThatMoreEpochsStretchTheSchedule) {
  run(config("a"), 3);
  Observer observer;
  train(config("a", {"train.epochs=3"}), {.resume = true}, observer);
  ASSERT_EQ(observer.messages.size(), 1u);
  EXPECT_NE(observer.messages[0].find("its one_cycle schedule is stretched"), std::string::npos);
}

TEST_F(TrainerTest, EvaluationRefusesKeysThatTheCheckpointDecides) {
  run(config("a"));
  EXPECT_THROW(evaluate(config("a", {"data.normalize=auto"}), directory_ / "a"), Error);
  EXPECT_THROW(predict(config("a", {"data.normalize=auto"}), directory_ / "a", {}), Error);
}

TEST_F(TrainerTest, ResumeNeedsNoInitialWeights) {
  run(config("a"), 1);
  const std::filesystem::path weights = directory_ / "w.safetensors";
  std::filesystem::copy_file(checkpoints("a") / checkpoint_name(1) / "weights.safetensors",
                             weights);
  const Config from_weights = config("b", {"model.weights=" + weights.string()});
  run(from_weights, 3);
  std::filesystem::remove(weights);
  EXPECT_EQ(run(from_weights, -1, /*resume=*/true).step, 12);
}

TEST_F(TrainerTest, ResumeRefusesWhatWouldChangeTheBits) {
  run(config("a"), 3);
  EXPECT_NE(error_of(config("a", {"train.leaves=2"}), true).find("train.leaves"),
            std::string::npos);
  EXPECT_NE(error_of(config("b"), true).find("nothing to resume"), std::string::npos);
  const std::string metrics = read_file(directory_ / "a" / "metrics.jsonl");
  EXPECT_NE(error_of(config("a")).find("resume"), std::string::npos);  // would mix two runs
  EXPECT_EQ(read_file(directory_ / "a" / "metrics.jsonl"), metrics);
}

TEST_F(TrainerTest, ResumeRefusesAnotherNetworkThatHasTheSameTensors) {
  run(config("a"), 3);
  const std::string before = read_file(directory_ / "a" / "config.toml");
  const std::string error = error_of(config("a", {"model.label_smoothing=0.1"}), true);
  EXPECT_NE(error.find("model.label_smoothing"), std::string::npos) << error;
  EXPECT_EQ(read_file(directory_ / "a" / "config.toml"), before);
  EXPECT_EQ(run(config("a", {"train.log_every=3", "data.prefetch=3"}), -1, true).step, 12);
}

TEST_F(TrainerTest, OneRunAtATimeHasTheFolder) {
  const RunLock lock(directory_ / "a");
  EXPECT_NE(error_of(config("a")).find("another run"), std::string::npos);
}

TEST_F(TrainerTest, AStartThatFailsLeavesNoFolder) {
  const std::string error = error_of(config("runs/none"), true);
  EXPECT_NE(error.find("nothing to resume"), std::string::npos) << error;
  EXPECT_FALSE(std::filesystem::exists(directory_ / "runs"));
}

TEST_F(TrainerTest, CategoricalColumnsAreNamedInTheConfiguration) {
  std::filesystem::create_directories(directory_);
  write_file_atomically(directory_ / "t.csv",
                        "size,colour,price\n1,red,2\n2,blue,5\n3,red,6\n4,blue,9\n");
  const std::string text = fmt::format(
      "[model]\nloss = \"mse\"\n[data]\nkind = \"csv\"\ndir = {0}\ntrain_file = \"t.csv\"\n"
      "test_file = \"t.csv\"\ncategorical = [\"colour\"]\n[train]\nbatch = 2\nepochs = 1\n"
      "threads = 1\n[output]\ndir = {1}\n",
      quote(directory_.string()), quote((directory_ / "csv").string()));
  EXPECT_EQ(run(parse_config(text, "csv.toml")).step, 2);
}

TEST_F(TrainerTest, LeavesTheRunFolderThatIsDocumented) {
  run(config("a"));
  EXPECT_EQ(parse_config(read_file(directory_ / "a" / "config.toml"), "config.toml"), config("a"));
  bool events = false;
  for (const auto& entry : std::filesystem::directory_iterator(directory_ / "a")) {
    events = events || entry.path().filename().string().starts_with("events.");
  }
  EXPECT_TRUE(events);
  EXPECT_FALSE(list_checkpoints(checkpoints("a")).empty());
}

}  // namespace
}  // namespace concord::train

// Optimizer states that lie in a file: parallel.offload.
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "concord/cli/command_test.h"

namespace concord::cli {
namespace {

using testing::HasSubstr;

constexpr double kMiB = 1 << 20;

class Offload : public CommandTest {
 protected:
  // 8.4 million parameters, of which AdamW has 64 MiB of states, 8 for each of 8 tensors. The file
  // lies in the folder of the build, which is on a disk; the test's own may not be.
  Offload()
      : CommandTest(fmt::format(R"(
[model]
hidden = [1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024]
[data]
kind = "synthetic"
shape = [4, 4, 1]
samples = 128
classes = 3
[train]
batch = 32
leaves = 4
max_steps = 3
threads = 1
[optimizer]
name = "adamw"
clip_norm = 0.5
[parallel]
offload = "optimizer"
offload_dir = "{}"
[output]
dir = "run"
)",
                                std::filesystem::current_path().string())) {}

  static constexpr const char* kInMemory =
      " --set parallel.offload=none --set parallel.offload_dir= ";
  static constexpr const char* kSmaller = " --set model.hidden=[256,256] ";

  nlohmann::json train(const std::string& options) {
    std::filesystem::remove_all(folder_ / "run");
    const Outcome outcome = run("train small.toml --json " + options);
    EXPECT_EQ(outcome.code, 0) << options << ": " << outcome.err;
    return outcome.code == 0 ? outcome.last_line() : nlohmann::json();
  }
  nlohmann::json foreseen(const std::string& options) {
    return run("info small.toml --json " + options).last_line()["memory"];
  }
};

TEST_F(Offload, StatesAreNotResidentAndTheBitsAreTheSame) {
  const nlohmann::json in_memory = foreseen(kInMemory), on_disk = foreseen("");
  const double states = on_disk["offloaded"];
  EXPECT_EQ(in_memory["offloaded"], 0);
  EXPECT_NEAR(states, 64 * kMiB, 0.5 * kMiB);
  const double saved = in_memory["states"].get<double>() - on_disk["states"].get<double>();
  EXPECT_NEAR(saved, states - 8 * kMiB, 0.5 * kMiB) << "one of them is in use";

  const nlohmann::json before = train(kInMemory), after = train("");
  EXPECT_EQ(after["weights_hash"], before["weights_hash"]);
  EXPECT_EQ(after["loss"], before["loss"]);
  const double fallen =
      before["peak_rss_bytes"].get<double>() - after["peak_rss_bytes"].get<double>();
  EXPECT_GT(fallen, 0.8 * (states - 8 * kMiB));
  EXPECT_LE(after["peak_rss_bytes"].get<double>(),
            1.05 * after["predicted_peak_bytes"].get<double>());
}

TEST_F(Offload, AnyRanksComputeTheSameBits) {
  for (const char* optimizer : {"", " --set optimizer.ema_decay=0.9",
                                " --set optimizer.name=sgd --set optimizer.clip_norm=0"}) {
    const std::string options = std::string(kSmaller) + optimizer;
    const nlohmann::json expected = train(options + kInMemory)["weights_hash"];
    EXPECT_EQ(train(options)["weights_hash"], expected) << options;
    for (const char* transport : {"shm", "gloo"}) {
      for (const int zero : {0, 1, 3}) {
        const std::string ranks = fmt::format(
            " --ranks 2 --set parallel.transport={} --set parallel.zero={} ", transport, zero);
        EXPECT_GT(foreseen(options + ranks)["offloaded"].get<double>(), 1e5) << ranks;
        EXPECT_EQ(train(options + ranks)["weights_hash"], expected) << options << ranks;
      }
    }
  }
}

TEST_F(Offload, OptimizersThatNeedNormsAreOffloadedToo) {
  for (const char* name : {"lamb", "lars", "muon"}) {
    const std::string options =
        fmt::format("{} --set optimizer.clip_norm=0 --set optimizer.name={} ", kSmaller, name);
    const nlohmann::json expected = train(options + kInMemory)["weights_hash"];
    EXPECT_EQ(train(options)["weights_hash"], expected) << name;
    const char* ranks = "--ranks 2 --set parallel.zero=1 --set parallel.transport=gloo";
    EXPECT_EQ(train(options + ranks)["weights_hash"], expected) << name;
  }
}

TEST_F(Offload, ARunIsResumedWithAndWithout) {
  const nlohmann::json whole = train(kSmaller);
  for (const char* first : {"", kInMemory}) {
    train(std::string(kSmaller) + first + "--set train.max_steps=1");
    const Outcome resumed = run(fmt::format("train small.toml --json --resume {} {}", kSmaller,
                                            *first == 0 ? kInMemory : ""));
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    EXPECT_EQ(resumed.last_line()["weights_hash"], whole["weights_hash"]);
  }
}

TEST_F(Offload, ARunThatFitsSoIsNotRefused) {
  const std::string options = "--set train.recompute=full ";
  const double peak = foreseen(options)["peak"];
  const std::string limit = fmt::format("{} --set train.memory_limit={}", options,
                                        static_cast<std::int64_t>(1.03 * peak));
  train(limit);
  std::filesystem::remove_all(folder_ / "run");
  const Outcome refused = run("train small.toml --json " + limit + kInMemory);
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("; set parallel.offload = \"optimizer\", which needs "));
}

TEST_F(Offload, WhatCannotBeIsSaidInOneLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"--set parallel.offload=everything", "parallel.offload = \"everything\": expected "},
      {"--set parallel.offload_dir=nowhere", "can be made in nowhere: No such file"},
      {"--set parallel.offload_dir=small.toml", "can be made in small.toml: Not a directory"},
      {"--set parallel.offload_dir=/proc", "can be made in /proc: "},
      {"--set parallel.offload_dir=nowhere --set model.hidden=[4]",
       "concord: parallel.offload_dir = \"nowhere\": no file of 1.0 MiB can be made in nowhere: "},
      {"--set optimizer.name=sgd --set optimizer.momentum=0",
       "parallel.offload = \"optimizer\": expected \"none\": \"sgd\" without optimizer.momentum "
       "has no states"},
      {"--set parallel.offload=none", "parallel.offload_dir"}};
  for (const auto& [options, why] : cases) {
    std::filesystem::remove_all(folder_ / "run");
    const Outcome outcome = run(std::string("train small.toml ") + options);
    EXPECT_EQ(outcome.code, 1) << options;
    EXPECT_THAT(outcome.err, HasSubstr(why)) << options;
    EXPECT_EQ(std::ranges::count(outcome.err.substr(outcome.err.find("concord: ")), '\n'), 1)
        << outcome.err;
  }
  // Not by a signal.
  const Outcome full = run_script("ulimit -f 1000; \"$concord\" train small.toml");
  EXPECT_EQ(full.code, 1);
  EXPECT_THAT(full.err, HasSubstr("concord: no file of "));
  EXPECT_THAT(full.err, HasSubstr("(ulimit -f); expected parallel.offload_dir to be a folder on a "
                                  "disk with that much room, or parallel.offload = \"none\"\n"));
}

}  // namespace
}  // namespace concord::cli

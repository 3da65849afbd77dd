// Activations that lie in a file: parallel.offload.
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "concord/cli/command_test.h"

namespace concord::cli {
namespace {

using testing::HasSubstr;

constexpr double kMiB = 1 << 20;

// The file lies in the folder of the build, which is on a disk; the test's own may not be.
class ActivationOffload : public CommandTest {
 protected:
  explicit ActivationOffload(const char* small_toml = kGpt) : CommandTest(small_toml) {}

  // A leaf is of 2048 tokens: one value of the model's width has 768 KiB.
  static constexpr const char* kGpt = R"(
[model]
name = "gpt"
layers = 2
heads = 2
width = 96
[data]
kind = "synthetic"
tokens = true
shape = [128]
classes = 32
samples = 32
[train]
batch = 32
leaves = 2
max_steps = 2
threads = 1
checkpoint_every_steps = 1
kernels = "default"
[optimizer]
name = "adamw"
learning_rate = 0.01
[output]
dir = "run"
)";

  static std::string offloading(const char* what) {
    return fmt::format(" --set parallel.offload={} --set 'parallel.offload_dir=\"{}\"' ", what,
                       std::filesystem::current_path().string());
  }
  nlohmann::json train(const std::string& options) {
    std::filesystem::remove_all(folder_ / "run");
    const Outcome outcome = run("train small.toml --json " + options);
    EXPECT_EQ(outcome.code, 0) << options << ": " << outcome.err;
    return outcome.code == 0 ? outcome.last_line() : nlohmann::json();
  }
  // Of runs with `common` options, what is offloaded and further options: the hash of one that
  // offloads nothing.
  void expect_same_bits(const std::string& common,
                        const std::vector<std::pair<const char*, const char*>>& runs) {
    const nlohmann::json expected = train(common)["weights_hash"];
    for (const auto& [what, options] : runs) {
      const std::string with = common + options + offloading(what);
      EXPECT_GT(foreseen(with)["offloaded"].get<double>(), 0.1 * kMiB) << with;
      EXPECT_EQ(train(with)["weights_hash"], expected) << with;
    }
  }
  nlohmann::json foreseen(const std::string& options) {
    return run("info small.toml --json " + options).last_line()["memory"];
  }
};

TEST_F(ActivationOffload, AnyRanksComputeTheSameBits) {
  expect_same_bits("", {{"optimizer", ""},
                        {"activations", ""},
                        {"all", ""},
                        {"all", "--set train.recompute=selective"},
                        {"activations", "--set train.recompute=full"},
                        {"activations", "--ranks 2"},
                        {"all", "--ranks 2 --set parallel.zero=1"},
                        {"all", "--ranks 2 --set parallel.zero=3"},
                        {"activations", "--ranks 2 --set parallel.transport=gloo"},
                        {"all", "--ranks 2 --set parallel.zero=3 --set parallel.transport=gloo"}});
}

// What collectives along this axis read and write is in memory that the ranks share.
TEST_F(ActivationOffload, RanksThatDivideTheModelComputeTheSameBits) {
  expect_same_bits("--ranks 2 --set parallel.mesh.tensor=2 ",
                   {{"optimizer", ""},
                    {"activations", ""},
                    {"all", ""},
                    {"all", "--set parallel.transport=gloo"}});
}

TEST_F(ActivationOffload, InBf16TheBitsAreTheSameToo) {
  if (run("info small.toml --set train.precision=bf16").code != 0) {
    GTEST_SKIP() << "no instructions for bf16 on this processor";
  }
  expect_same_bits(
      "--set train.precision=bf16 ",
      {{"optimizer", ""}, {"activations", ""}, {"all", "--ranks 2 --set parallel.zero=1"}});
}

TEST_F(ActivationOffload, ARunIsResumedWithAndWithout) {
  const nlohmann::json whole = train("");
  for (const bool offloads_first : {true, false}) {
    const std::string other = offloading("all");
    train((offloads_first ? other : "") + " --set train.max_steps=1");
    const Outcome resumed =
        run("train small.toml --json --resume " + (offloads_first ? "" : other));
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    EXPECT_EQ(resumed.last_line()["weights_hash"], whole["weights_hash"]);
  }
}

// The batch of the last step of an epoch is shorter.
TEST_F(ActivationOffload, MicrobatchesOfSeveralSizesTakeTurns) {
  const std::string options =
      "--set train.batch=30 --set train.microbatch=13 --set train.max_steps=3 ";
  EXPECT_EQ(train(options + offloading("activations"))["weights_hash"],
            train(options)["weights_hash"]);
}

TEST_F(ActivationOffload, WhatCannotBeIsSaidInOneLine) {
  const std::string momentum = "--set optimizer.name=sgd --set optimizer.momentum=0 ";
  EXPECT_THAT(run("train small.toml " + momentum + offloading("all")).err,
              HasSubstr("parallel.offload = \"all\": expected \"activations\": \"sgd\" without "
                        "optimizer.momentum has no states"));
  train(momentum + offloading("activations"));
  std::filesystem::remove_all(folder_ / "run");
  const Outcome nowhere =
      run("train small.toml --set parallel.offload=activations --set parallel.offload_dir=nowhere");
  EXPECT_EQ(nowhere.code, 1);
  EXPECT_THAT(nowhere.err, HasSubstr("can be made in nowhere: No such file"));
  EXPECT_THAT(nowhere.err, HasSubstr("; expected parallel.offload_dir to be a folder on a disk "));
}

// 24 hidden layers, of which each leaves 4 MiB to the backward pass, and little else.
class DeepActivationOffload : public ActivationOffload {
 protected:
  DeepActivationOffload()
      : ActivationOffload(R"(
[model]
hidden = [128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
          128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128]
[data]
kind = "synthetic"
shape = [4, 4, 1]
samples = 8192
classes = 3
[train]
batch = 8192
leaves = 1
max_steps = 2
threads = 1
kernels = "default"
[output]
dir = "run"
)") {}
};

TEST_F(DeepActivationOffload, ActivationsAreNotResident) {
  const std::string with = offloading("activations");
  const nlohmann::json in_memory = foreseen(""), on_disk = foreseen(with);
  EXPECT_EQ(in_memory["offloaded"], 0);
  EXPECT_GT(on_disk["offloaded"].get<double>(), 80 * kMiB);
  const double saved = in_memory["peak"].get<double>() - on_disk["peak"].get<double>();
  EXPECT_GT(saved, 70 * kMiB);
  EXPECT_THAT(run("info small.toml " + with).out, HasSubstr("disk  "));

  const nlohmann::json before = train(""), after = train(with);
  EXPECT_EQ(after["weights_hash"], before["weights_hash"]);
  EXPECT_EQ(after["loss"], before["loss"]);
  const double fallen =
      before["peak_rss_bytes"].get<double>() - after["peak_rss_bytes"].get<double>();
  EXPECT_NEAR(fallen, saved, 0.1 * saved);
}

TEST_F(DeepActivationOffload, ARunThatFitsSoIsNotRefused) {
  const double peak = foreseen(offloading("activations") + "--set train.recompute=full")["peak"];
  const std::string limit = fmt::format("--set train.recompute=full --set train.memory_limit={}",
                                        static_cast<std::int64_t>(1.03 * peak));
  train(limit + offloading("activations"));
  std::filesystem::remove_all(folder_ / "run");
  const Outcome refused = run("train small.toml --json " + limit);
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("; set parallel.offload = \"activations\", which needs "));
}

}  // namespace
}  // namespace concord::cli

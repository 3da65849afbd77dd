// Memory as it is foreseen, as it is, and what is refused.
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "concord/cli/command_test.h"

namespace concord::cli {
namespace {

using testing::HasSubstr;

class Memory : public CommandTest {
 protected:
  // Some hundred MB of activations.
  Memory()
      : CommandTest(R"(
[model]
name = "resnet18"
[data]
kind = "synthetic"
shape = [3, 32, 32]
samples = 128
classes = 10
[train]
batch = 128
leaves = 2
max_steps = 1
[optimizer]
name = "sgd"
momentum = 0.9
[output]
dir = "run"
)") {}

  nlohmann::json foreseen(const std::string& options) {
    const Outcome outcome = run("info small.toml --json " + options);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.last_line()["memory"];
  }
};

// Beside a process's own, which is what it is, the sum is of buffers that are all written.
TEST_F(Memory, ThePeakIsForeseenToAFewPercent) {
  const nlohmann::json result = run("train small.toml --json").last_line();
  const double measured = result["peak_rss_bytes"], predicted = result["predicted_peak_bytes"];
  EXPECT_GT(measured, 4e8);
  EXPECT_NEAR(predicted, measured, 0.05 * measured);
  EXPECT_NEAR(foreseen("")["peak"].get<double>(), measured, 0.05 * measured);
}

TEST_F(Memory, ThePeakOfARankAmongSeveralIsForeseenToAFewPercent) {
  for (const char* how : {"--ranks 2", "--ranks 2 --set parallel.mesh.tensor=2"}) {
    std::filesystem::remove_all(folder_ / "run");
    const nlohmann::json result = run(fmt::format("train small.toml --json {}", how)).last_line();
    const double measured = result["peak_rss_bytes"], predicted = result["predicted_peak_bytes"];
    EXPECT_NEAR(predicted, measured, 0.05 * measured) << how;
  }
}

// A table is read as text, of which the data set keeps the numbers alone.
TEST_F(Memory, WhatOpeningTheDataTakesIsForeseen) {
  std::ofstream table(folder_ / "train.csv");
  const std::string row = "0" + std::string(200, '0') + ",1.5,2\n";
  for (int i = 0; i < 400000; ++i) table << row;
  std::ofstream(folder_ / "test.csv") << row << row;
  table.close();
  std::ofstream(folder_ / "table.toml") << R"(
[model]
hidden = [4]
loss = "mse"
[data]
kind = "csv"
has_header = false
[train]
max_steps = 1
threads = 1
[output]
dir = "run"
)";
  const nlohmann::json result = run("train table.toml --json").last_line();
  const double measured = result["peak_rss_bytes"], predicted = result["predicted_peak_bytes"];
  EXPECT_GT(measured, 1e8);
  EXPECT_NEAR(predicted, measured, 0.05 * measured);
  const nlohmann::json memory = run("info table.toml --json").last_line()["memory"];
  EXPECT_NEAR(memory["peak"].get<double>(), measured, 0.05 * measured);
  EXPECT_EQ(memory["opening"], memory["peak"]);
}

TEST_F(Memory, RecomputingAndSmallerMicrobatchesAreForeseenToTakeLess) {
  const double all = foreseen("")["workspace"];
  EXPECT_LT(foreseen("--set train.recompute=full")["workspace"].get<double>(), 0.8 * all);
  EXPECT_LT(foreseen("--set train.microbatch=16")["workspace"].get<double>(), 0.5 * all);
}

TEST_F(Memory, ARunThatDoesNotFitIsRefusedWithTheNearestThatDoes) {
  const double peak = foreseen("")["peak"];
  const auto with_limit = [&](double limit, const std::string& options = "") {
    return run(fmt::format("train small.toml --json --set train.memory_limit={} {}",
                           static_cast<std::int64_t>(limit), options));
  };
  const double full = foreseen("--set train.recompute=full")["peak"];
  ASSERT_LT(1.04 * full, peak);
  const Outcome refused = with_limit(1.03 * full);
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("concord: the run would need "));
  EXPECT_THAT(refused.err, HasSubstr(" is train.memory_limit: "));
  EXPECT_THAT(refused.err, HasSubstr("; set train.recompute = "));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run" / "checkpoints" / "1"));
  EXPECT_EQ(with_limit(1.03 * full, "--set train.recompute=full").code, 0);
  const std::string large =
      "--set train.batch=512 --set data.samples=512 --set train.kernels=default "
      "--set output.dir=b ";
  const double less = foreseen(
      large +
      "--set train.recompute=full --set parallel.offload=all --set train.microbatch=8")["peak"];
  EXPECT_THAT(with_limit(1.03 * less, large).err, HasSubstr("train.microbatch = "));
  EXPECT_THAT(with_limit(1000, "--set output.dir=c").err, HasSubstr("makes it fit: expected a "));
  // Of all ranks of the host together.
  const Outcome ranks = with_limit(peak, "--ranks 2 --set output.dir=d");
  EXPECT_EQ(ranks.code, 1);
  EXPECT_THAT(ranks.err, HasSubstr("2 ranks would need "));
}

// Where what may be done alone is done already. Each rank is as on a host of its own; states are
// divided first, which changes no bits.
TEST_F(Memory, RanksThatDoNotFitAreToldToDivideMore) {
  const std::string common =
      "--ranks 2 --set train.recompute=full --set parallel.transport=gloo --set train.batch=256 "
      "--set data.samples=256";
  const auto peak = [&](const std::string& options) {
    return foreseen(common + options)["peak"].get<double>();
  };
  const auto error = [&](double limit) {
    return run(fmt::format("train small.toml {} --set train.memory_limit={}", common,
                           static_cast<std::int64_t>(limit)))
        .err;
  };
  const double whole = peak(""), thirds = peak(" --set parallel.zero=3");
  const double divided = peak(" --set parallel.mesh.tensor=2");
  ASSERT_LT(1.1 * thirds, whole);
  EXPECT_THAT(error(1.05 * thirds), HasSubstr("; set parallel.zero = "));
  ASSERT_LT(1.05 * divided, thirds);
  EXPECT_THAT(error((divided + thirds) / 2),
              HasSubstr("; set parallel.mesh = { data = 1, tensor = 2 }, which needs "));
}

}  // namespace
}  // namespace concord::cli

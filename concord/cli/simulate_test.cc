// concord simulate, as a user starts it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "concord/base/file.h"
#include "concord/cli/command_test.h"

namespace concord::cli {
namespace {

using testing::HasSubstr;

class Simulate : public CommandTest {
 protected:
  Simulate()
      : CommandTest(R"(
[model]
name = "mlp"
hidden = [32, 32, 32]
[data]
kind = "synthetic"
shape = [16]
samples = 256
classes = 4
[train]
batch = 32
leaves = 8
threads = 1
[output]
dir = "run"
)") {}
};

TEST_F(Simulate, TellsAStepOfRanksOfThisMachineAndOfThoseThatAreNotThere) {
  const Outcome one = run("simulate small.toml --json");
  ASSERT_EQ(one.code, 0) << one.err;
  EXPECT_GT(one.last_line()["step_seconds"], 0);
  EXPECT_GT(one.last_line()["measured_ops"], 5);
  const Outcome two = run(
      "simulate small.toml --ranks 2 --set parallel.mesh.pipe=2 --check --json --trace step.json");
  ASSERT_EQ(two.code, 0) << two.err;
  EXPECT_EQ(two.last_line()["of_ranks"].size(), 2U);
  EXPECT_GT(two.last_line()["measured_step_seconds"], 0);
  EXPECT_GT(two.last_line()["error"], -1);
  const Outcome summary = run("trace summary step.json --json");
  ASSERT_EQ(summary.code, 0) << summary.err;
  EXPECT_EQ(summary.last_line()["ranks"].size(), 2U);
  const Outcome drawn = run("trace draw step.json --out step.svg");
  EXPECT_EQ(drawn.code, 0) << drawn.err;
  const Outcome stream =
      run("simulate small.toml --ranks 2 --set parallel.mesh.pipe=2 --check --json "
          "--set parallel.schedule=pipedream-2bw");
  ASSERT_EQ(stream.code, 0) << stream.err;
  EXPECT_GT(stream.last_line()["step_seconds"], 0);
  EXPECT_GT(stream.last_line()["measured_step_seconds"], 0);

  write_file_atomically(folder_ / "cluster.toml", R"([[hosts]]
name = "node"
count = 512
ranks = 2
[between]
bytes_per_second = 1e9
latency_seconds = 1e-5
)");
  const Outcome many =
      run("simulate small.toml --ranks 1024 --cluster cluster.toml --set train.batch=1024 "
          "--set train.leaves=1024 --set data.samples=2048 --json");
  ASSERT_EQ(many.code, 0) << many.err;
  EXPECT_EQ(many.last_line()["ranks"], 1024);
  EXPECT_EQ(many.last_line()["of_ranks"].size(), 1U);
}

TEST_F(Simulate, ReadsTheClusterThatPreflightWrites) {
  const Outcome measured = run("preflight --ranks 2 --cluster cluster.toml --json");
  ASSERT_EQ(measured.code, 0) << measured.err;
  const Outcome one = run("simulate small.toml --ranks 2 --cluster cluster.toml --json");
  ASSERT_EQ(one.code, 0) << one.err;
  EXPECT_EQ(one.last_line()["ranks"], 2);
  EXPECT_GT(one.last_line()["step_seconds"], 0);
}

TEST_F(Simulate, RefusesInOneLineWhatCannotBe) {
  const auto error_of = [&](const std::string& options) {
    const Outcome outcome = run("simulate small.toml " + options);
    EXPECT_EQ(outcome.code, 1) << options;
    return outcome.err;
  };
  EXPECT_THAT(error_of("--cluster none.toml"), HasSubstr("none.toml"));
  write_file_atomically(folder_ / "cluster.toml", R"([[hosts]]
name = "node"
ranks = 1
[[links]]
hosts = ["node", "nodes"]
bytes_per_second = 1e9
latency_seconds = 1e-5
)");
  EXPECT_THAT(error_of("--cluster cluster.toml"), HasSubstr("there are no hosts \"nodes\""));
  write_file_atomically(folder_ / "cluster.toml", "[[hosts]]\nname = \"node\"\nranks = 1\n");
  EXPECT_THAT(error_of("--cluster cluster.toml --ranks 2"),
              HasSubstr("the cluster has 1 ranks, and the job 2"));
  EXPECT_THAT(error_of("--cluster cluster.toml --check"), HasSubstr("--cluster puts them"));
}

}  // namespace
}  // namespace concord::cli

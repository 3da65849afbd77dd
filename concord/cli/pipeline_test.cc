// Ranks that divide the layers of a model, as a user starts them.
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "concord/base/file.h"
#include "concord/cli/command_test.h"
#include "concord/formats/trace_file.h"
#include "concord/parallel/schedule.h"

namespace concord::cli {
namespace {

using testing::HasSubstr;

class PipelineOfRanks : public CommandTest {
 protected:
  PipelineOfRanks()
      : CommandTest(R"(
[model]
name = "gpt"
layers = 3
heads = 2
width = 32
dropout = 0.1
[data]
kind = "synthetic"
tokens = true
shape = [16]
samples = 72
classes = 32
[train]
batch = 16
leaves = 4
microbatch = 2
max_steps = 6
threads = 1
[optimizer]
name = "adamw"
learning_rate = 0.003
clip_norm = 0.5
ema_decay = 0.9
[output]
dir = "run"
)") {}

  Outcome train(const std::string& options) { return run("train small.toml --json " + options); }

  void learn_by_lenet(const std::string& of_data, const std::string& of_train) {
    write_file_atomically(folder_ / "small.toml",
                          "[model]\nname = \"lenet\"\n"
                          "[data]\nkind = \"synthetic\"\nshape = [1, 28, 28]\n" +
                              of_data + "\n[train]\nleaves = 1\nthreads = 1\n" + of_train +
                              "\n[output]\ndir = \"run\"\n");
  }

  // Of each way, what one rank computes.
  void expect_bits_of_one_rank(const std::string& work, std::initializer_list<const char*> ways) {
    const Outcome alone = train(work);
    ASSERT_EQ(alone.code, 0) << work << ": " << alone.err;
    for (const char* way : ways) {
      const Outcome outcome = train(work + way + " --set output.dir=other");
      ASSERT_EQ(outcome.code, 0) << work << way << ": " << outcome.err;
      for (const char* figure : {"weights_hash", "loss", "train_loss"}) {
        EXPECT_EQ(outcome.last_line()[figure], alone.last_line()[figure])
            << figure << " of " << work << way;
      }
      std::filesystem::remove_all(folder_ / "other");
    }
    std::filesystem::remove_all(folder_ / "run");
  }
};

// The first and the last stage share the words' vectors; the last step of an epoch is shorter.
TEST_F(PipelineOfRanks, EverySynchronousScheduleComputesTheBitsOfOneRank) {
  expect_bits_of_one_rank(
      "", {"--ranks 2 --set parallel.mesh.pipe=2 --set parallel.schedule=sequential",
           "--ranks 2 --set parallel.mesh.pipe=2 --set parallel.schedule=gpipe",
           "--ranks 2 --set parallel.mesh.pipe=2",
           "--ranks 2 --set parallel.mesh.pipe=2 --set parallel.schedule=interleaved",
           "--ranks 2 --set parallel.mesh.pipe=2 --set parallel.schedule=interleaved "
           "--set parallel.chunks=3",
           "--ranks 2 --set parallel.mesh.pipe=2 --set parallel.schedule=zb-h1",
           "--ranks 2 --set parallel.mesh.pipe=2 --set parallel.schedule=zb-v",
           "--ranks 3 --set parallel.mesh.pipe=3 --set parallel.transport=gloo",
           "--ranks 3 --set parallel.mesh.pipe=3 --set parallel.schedule=zb-h1",
           "--ranks 8 --set parallel.mesh.pipe=8"});
}

// One rank has two versions of the weights, too. The last step of an epoch is shorter.
TEST_F(PipelineOfRanks, TwoVersionsHaveTheBitsOfOneRankThatHasTwo) {
  const std::string work = "--set train.max_steps=9 --set parallel.schedule=pipedream-2bw ";
  expect_bits_of_one_rank(
      work, {"--ranks 2 --set parallel.mesh.pipe=2", "--ranks 4 --set parallel.mesh.pipe=4",
             "--ranks 3 --set parallel.mesh.pipe=3 --set parallel.transport=gloo",
             "--ranks 4 --set parallel.mesh={data=2,pipe=2} --set parallel.zero=1",
             "--ranks 2 --set parallel.mesh.pipe=2 --set train.recompute=full",
             "--ranks 2 --set parallel.mesh.pipe=2 --set parallel.offload=all", "--ranks 2",
             "--ranks 4 --set parallel.mesh.pipe=2 --set train.checkpoint_every_steps=2"});
  const std::string of_two = train(work).last_line()["weights_hash"];
  const std::string of_one =
      train("--set train.max_steps=9 --set output.dir=other").last_line()["weights_hash"];
  EXPECT_NE(of_two, of_one);
}

TEST_F(PipelineOfRanks, UpdatesAfterEachMicrobatchDependOnTheStagesAlone) {
  const std::string work =
      "--set train.batch=4 --set train.leaves=1 --set train.microbatch=0 --set train.max_steps=22 "
      "--set parallel.schedule=pipedream --set parallel.vertical_sync=true "
      "--ranks 3 --set parallel.mesh.pipe=3 ";
  const std::string hash = train(work).last_line()["weights_hash"];
  for (const char* way :
       {"", "--set parallel.transport=gloo", "--set train.checkpoint_every_steps=5"}) {
    const Outcome outcome = train(work + way + " --set output.dir=other");
    ASSERT_EQ(outcome.code, 0) << way << ": " << outcome.err;
    EXPECT_EQ(outcome.last_line()["weights_hash"], hash) << way;
    std::filesystem::remove_all(folder_ / "other");
  }
}

// With the older versions of the weights.
TEST_F(PipelineOfRanks, ARunOfOlderWeightsIsResumed) {
  const std::string of_microbatches =
      "--set train.batch=4 --set train.leaves=1 --set train.microbatch=0 "
      "--set parallel.schedule=pipedream --set parallel.vertical_sync=true "
      "--ranks 3 --set parallel.mesh.pipe=3 ";
  const std::string of_steps = "--set parallel.schedule=pipedream-2bw ";
  const struct {
    std::string before, after;
  } cases[] = {{of_microbatches, of_microbatches},
               {of_steps + "--ranks 3 --set parallel.mesh.pipe=3", of_steps},
               {of_steps, of_steps + "--ranks 4 --set parallel.mesh.pipe=2"}};
  for (const auto& [before, after] : cases) {
    const std::string whole =
        train(before + " --set train.max_steps=8").last_line()["weights_hash"];
    std::filesystem::remove_all(folder_ / "run");
    ASSERT_EQ(train(before + " --set train.max_steps=5").code, 0);
    const Outcome second = train(after + " --set train.max_steps=8 --resume");
    ASSERT_EQ(second.code, 0) << after << ": " << second.err;
    EXPECT_EQ(second.last_line()["weights_hash"], whole) << before << ", then " << after;
    const Outcome other = train(
        "--set parallel.schedule=1f1b --resume " +
        after.substr(after.find("--ranks") == after.npos ? after.size() : after.find("--ranks")));
    EXPECT_THAT(other.err, HasSubstr("but the run began with"));
    std::filesystem::remove_all(folder_ / "run");
  }
}

TEST_F(PipelineOfRanks, RecomputationAndOtherAxesDoNotChangeThem) {
  expect_bits_of_one_rank("",
                          {"--ranks 4 --set parallel.mesh={data=2,pipe=2}",
                           "--ranks 4 --set parallel.mesh={data=2,pipe=2} --set parallel.zero=1 "
                           "--set parallel.transport=gloo",
                           "--ranks 2 --set parallel.mesh.pipe=2 --set parallel.offload=all"});
  const std::string divided = "--ranks 2 --set parallel.mesh={tensor=2}";
  const Outcome tensor = train(divided);
  const Outcome both =
      train("--ranks 4 --set parallel.mesh={pipe=2,tensor=2} --set output.dir=other");
  ASSERT_EQ(both.code, 0) << both.err;
  EXPECT_EQ(both.last_line()["weights_hash"], tensor.last_line()["weights_hash"]);
  std::filesystem::remove_all(folder_ / "other");
  std::filesystem::remove_all(folder_ / "run");
  expect_bits_of_one_rank("--set train.recompute=full ",
                          {"--ranks 2 --set parallel.mesh.pipe=2",
                           "--ranks 2 --set parallel.mesh.pipe=2 --set parallel.schedule=zb-v"});
}

// Large enough for ranks along data to share its numbers: each updates some, and the first stage
// sends all of them to the last.
TEST_F(PipelineOfRanks, AWeightOfTwoStagesMayBeSharedAlongData) {
  expect_bits_of_one_rank("--set data.classes=1024 ",
                          {"--ranks 4 --set parallel.mesh={data=2,pipe=2}",
                           "--ranks 4 --set parallel.mesh={data=2,pipe=2} --set parallel.zero=1",
                           "--ranks 4 --set parallel.mesh={data=2,pipe=2} --set parallel.zero=1 "
                           "--set parallel.transport=gloo"});
}

// Sums of each microbatch, and weights gathered for each half of one. The last step of an epoch has
// more microbatches on some ranks than on others, of which one is shorter.
TEST_F(PipelineOfRanks, GradientsAndParametersMayBeDividedAlongData) {
  const std::string work = "--set data.classes=1024 --set data.samples=69 --set train.leaves=8 ";
  for (const char* zero : {"2", "3"}) {
    for (const char* schedule : {"gpipe", "1f1b", "interleaved", "zb-h1", "zb-v"}) {
      const bool is_gloo = schedule[0] != 'g' && schedule != std::string("zb-v");
      const std::string way = fmt::format(
          "--ranks 4 --set parallel.mesh={{data=2,pipe=2}} --set parallel.zero={} "
          "--set parallel.schedule={} --set parallel.transport={}",
          zero, schedule, is_gloo ? "gloo" : "shm");
      expect_bits_of_one_rank(work, {way.c_str()});
    }
  }
}

// All axes at once: the bits of the same tensor alone or, where ranks divide no sum, of one rank.
TEST_F(PipelineOfRanks, AllAxesAtOnceHaveTheBitsOfTensorAlone) {
  const std::string work = "--set data.classes=1024 --set train.leaves=8 ";
  const std::string tensor =
      train(work + "--ranks 2 --set parallel.mesh.tensor=2").last_line()["weights_hash"];
  const std::string alone = train(work + "--set parallel.split_sums=false --set output.dir=other")
                                .last_line()["weights_hash"];
  for (const char* zero : {"0", "1", "2", "3"}) {
    for (const bool splits : {true, false}) {
      const std::string way = fmt::format(
          "--ranks 8 --set parallel.mesh={{data=2,pipe=2,tensor=2}} --set parallel.zero={} "
          "--set parallel.split_sums={} --set parallel.transport={}",
          zero, splits, splits ? "gloo" : "shm");
      std::filesystem::remove_all(folder_ / "other");
      const Outcome outcome = train(work + way + " --set output.dir=other");
      ASSERT_EQ(outcome.code, 0) << way << ": " << outcome.err;
      EXPECT_EQ(outcome.last_line()["weights_hash"], splits ? tensor : alone) << way;
    }
  }
}

// More than a communicator remembers operations.
TEST_F(PipelineOfRanks, AStepMayHaveHundredsOfMicrobatches) {
  expect_bits_of_one_rank(
      "--set data.samples=320 --set train.batch=320 --set train.microbatch=1 "
      "--set train.max_steps=2 ",
      {"--ranks 2 --set parallel.mesh.pipe=2 --set parallel.schedule=gpipe",
       "--ranks 2 --set parallel.mesh.pipe=2 --set parallel.schedule=zb-v"});
}

TEST_F(PipelineOfRanks, AShorterMicrobatchThatHasOtherMessagesIsRefused) {
  learn_by_lenet("samples = 40", "batch = 16");
  const Outcome outcome = train("--ranks 3 --set parallel.mesh.pipe=3");
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("a shorter microbatch would have other messages"));
  EXPECT_EQ(train("--ranks 3 --set parallel.mesh.pipe=3 --set data.samples=80").code, 0);
}

TEST_F(PipelineOfRanks, ConvolutionsHaveTheBitsOfOneRank) {
  const char* const ways[] = {"--ranks 2 --set parallel.mesh.pipe=2",
                              "--ranks 2 --set parallel.mesh.pipe=2 --set parallel.schedule=zb-h1"};
  write_file_atomically(folder_ / "small.toml", R"(
[model]
name = "resnet18"
[data]
kind = "synthetic"
shape = [3, 16, 16]
samples = 48
classes = 4
[train]
batch = 16
leaves = 4
max_steps = 3
threads = 1
[optimizer]
momentum = 0.9
[output]
dir = "run"
)");
  expect_bits_of_one_rank("", {ways[0], ways[1]});
}

// Between two layers there are several places for a cut, of which a pool makes one cheapest.
TEST_F(PipelineOfRanks, AShorterStepIsCutWhereTheOthersAre) {
  learn_by_lenet("samples = 96\nclasses = 4", "batch = 64\nmax_steps = 4");
  expect_bits_of_one_rank(
      "", {"--ranks 3 --set parallel.mesh.pipe=3", "--ranks 4 --set parallel.mesh.pipe=4"});
}

// What a stage has is part of the same files.
TEST_F(PipelineOfRanks, ARunIsResumedByAnyOtherMesh) {
  const std::string whole = train("").last_line()["weights_hash"];
  const char* const meshes[] = {"", "--ranks 2 --set parallel.mesh.pipe=2",
                                "--ranks 4 --set parallel.mesh={data=2,pipe=2} "
                                "--set parallel.zero=1 --set parallel.transport=gloo",
                                "--ranks 3 --set parallel.mesh.pipe=3 "
                                "--set parallel.schedule=zb-h1"};
  for (const char* before : meshes) {
    for (const char* after : meshes) {
      const std::string dir = " --set output.dir=other";
      const Outcome first = train(before + dir + " --set train.max_steps=3");
      ASSERT_EQ(first.code, 0) << before << ": " << first.err;
      const Outcome second = train(after + dir + " --resume");
      ASSERT_EQ(second.code, 0) << before << ", then " << after << ": " << second.err;
      EXPECT_EQ(second.last_line()["weights_hash"], whole) << before << ", then " << after;
      std::filesystem::remove_all(folder_ / "other");
    }
  }
}

TEST_F(PipelineOfRanks, APlanTellsTheStagesAndIsGivenBack) {
  const Outcome shown =
      run("plan show small.toml --set parallel.mesh.pipe=2 --set parallel.schedule=zb-v "
          "--out plan.toml --json");
  ASSERT_EQ(shown.code, 0) << shown.err;
  const nlohmann::json plan = shown.last_line();
  std::map<std::string, nlohmann::json> weights;
  for (const nlohmann::json& weight : plan["weights"]) weights[weight["name"]] = weight;
  EXPECT_EQ(weights["wte.weight"]["stages"], nlohmann::json({0, 3}));
  EXPECT_EQ(weights["wte.weight"]["share"], 1.0);
  EXPECT_EQ(weights["h.1.mlp.c_fc.weight"]["share"], 0.0);  // rank 0 has the first and the last
  double sent = 0;
  for (const nlohmann::json& one : plan["collectives"]) {
    if (one["op"] == "send" && one["of"] == "microbatches") sent += one["count"].get<double>();
  }
  // Of 8 microbatches: forwards from the first stage, backwards from the last.
  EXPECT_EQ(sent, 16);
  std::filesystem::copy_file(folder_ / "small.toml", folder_ / "other.toml");
  std::ofstream(folder_ / "other.toml", std::ios::app) << "[parallel]\nschedule = \"gpipe\"\n";
  EXPECT_THAT(
      run("plan show other.toml --plan plan.toml").err,
      HasSubstr("parallel.schedule = gpipe, and --plan plan.toml has zb-v: make them equal"));
  const Outcome given = train("--ranks 2 --plan plan.toml");
  ASSERT_EQ(given.code, 0) << given.err;
  const Outcome alone = train("--set output.dir=other");
  EXPECT_EQ(given.last_line()["weights_hash"], alone.last_line()["weights_hash"]);
}

// Each rank has three halves of 8 microbatches, whatever the machine can do.
TEST_F(PipelineOfRanks, RanksThatPretendTakeAsLongAsTheyAreAskedTo) {
  for (const char* ranks : {"", " --ranks 4 --set parallel.mesh.pipe=4"}) {
    const Outcome outcome =
        run("bench step small.toml --steps 2 --pretend 0.002 --json" + std::string(ranks));
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const nlohmann::json result = outcome.last_line();
    EXPECT_EQ(result["pretended_seconds"], 0.002);
    EXPECT_GE(result["step_seconds"], 8 * 3 * 0.002 - 0.002);
    EXPECT_FALSE(result.contains("flops_per_second"));
  }
}

// What the schedule says, and no rank computes two halves at once. How long ranks wait is of the
// machine, too: bench/compare_bubble measures it.
TEST_F(PipelineOfRanks, ATraceShowsTheHalvesInTheOrderOfTheSchedule) {
  for (const char* schedule : {"gpipe", "1f1b", "zb-v"}) {
    const Outcome outcome =
        run("bench step small.toml --steps 2 --pretend 0.002 --ranks 4 --set parallel.mesh.pipe=4 "
            "--set model.layers=16 --trace trace.json --json --set parallel.schedule=" +
            std::string(schedule));
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const nlohmann::json result = outcome.last_line();
    EXPECT_GT(result["bubble"], 0.9 * result["bubble_of_equal_stages"].get<double>()) << schedule;
    parallel::Pipeline pipeline{
        .schedule = *parallel::find_schedule(schedule), .ranks = 4, .microbatches = 8};
    pipeline.chunks = parallel::fewest_chunks(pipeline.schedule);
    const JobTrace trace = formats::read_trace(folder_ / "trace.json");
    ASSERT_EQ(trace.size(), 4U);
    for (int rank = 0; rank < 4; ++rank) {
      std::vector<std::string> done, expected;
      double last = 0;
      for (const TraceEvent& event : trace[static_cast<std::size_t>(rank)]) {
        if (event.lane != Lane::kPipeline || event.step != 2) continue;
        EXPECT_GE(event.begin, last - 1e-6);
        last = event.end;
        // In two parts where it has waited between.
        const std::string what = fmt::format("{} {}", event.name.text(), event.about.text());
        if (done.empty() || done.back() != what) done.push_back(what);
      }
      for (const parallel::Action& action : actions_of(pipeline, rank)) {
        // Whose gradients nobody asks for.
        const bool is_first = stage_of(pipeline, rank, action.chunk) == 0;
        const bool splits = parallel::splits_backward(pipeline.schedule);
        if (is_first && splits && action.half == parallel::Half::kBackward) continue;
        constexpr const char* kNames[] = {"forward", "backward", "weights"};
        expected.push_back(fmt::format("{} microbatch {}, chunk {}",
                                       kNames[static_cast<int>(action.half)], action.microbatch,
                                       action.chunk));
      }
      EXPECT_EQ(done, expected) << schedule << ", rank " << rank;
    }
    const Outcome drawn = run("trace draw trace.json --out pipeline.svg --step 2 --json");
    ASSERT_EQ(drawn.code, 0) << drawn.err;
    EXPECT_EQ(drawn.last_line()["ranks"], 4);
    EXPECT_GT(drawn.last_line()["bubble"], 0);
    EXPECT_THAT(read_file(folder_ / "pipeline.svg"), HasSubstr("forward of microbatch 7, chunk 0"));
    EXPECT_THAT(run("trace summary trace.json").out, HasSubstr("compute"));
  }
  EXPECT_THAT(run("trace draw trace.json --out pipeline.svg --step 9").err,
              HasSubstr("nothing of step 9"));
}

TEST_F(PipelineOfRanks, InfoTellsTheStagesBeforeAnythingIsRun) {
  const Outcome outcome =
      run("info small.toml --set parallel.mesh.pipe=2 --set parallel.schedule=zb-v --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json info = outcome.last_line(), &pipeline = info["pipeline"];
  EXPECT_EQ(pipeline["microbatches"], 8);
  EXPECT_NEAR(pipeline["bubble_of_equal_stages"].get<double>(), 1.0 / (6 * 8), 1e-9);
  EXPECT_GT(pipeline["bubble"], 0);
  ASSERT_EQ(pipeline["stages"].size(), 4U);
  std::int64_t parameters = 0;
  const int places[] = {0, 1, 1, 0};
  for (int s = 0; s < 4; ++s) {
    const nlohmann::json& stage = pipeline["stages"][static_cast<std::size_t>(s)];
    EXPECT_EQ(stage["stage"], s);
    EXPECT_EQ(stage["place"], places[s]);
    parameters += stage["parameter_count"].get<std::int64_t>();
    EXPECT_GT(stage["forward_flops"], 0) << s;
    EXPECT_GT(stage["backward_flops"], stage["forward_flops"]) << s;
    EXPECT_GE(stage["microbatches_in_flight"], 1) << s;
    EXPECT_NE(stage["first_layer"], "") << s;
    EXPECT_GT(stage["activation_bytes"], 0) << s;
  }
  EXPECT_EQ(parameters, info["parameter_count"]);
  const Outcome text = run("info small.toml --set parallel.mesh.pipe=2");
  EXPECT_THAT(text.out, HasSubstr("pipeline         1f1b, 8 microbatches: bubble "));
  EXPECT_FALSE(run("info small.toml --json").last_line().contains("pipeline"));
}

TEST_F(PipelineOfRanks, WhatCannotBeIsRefusedInOneLine) {
  const auto refused = [&](const std::string& options, const std::string& why) {
    const Outcome outcome = train(options + " --set output.dir=other");
    EXPECT_NE(outcome.code, 0) << options;
    EXPECT_THAT(outcome.err, HasSubstr(why)) << options;
  };
  refused("--ranks 2 --set parallel.mesh.pipe=2 --set parallel.schedule=zigzag",
          "parallel.schedule = \"zigzag\": expected one of");
  refused(
      "--ranks 16 --set parallel.mesh.pipe=16 --set train.max_steps=1 "
      "--set model.layers=1",
      "expected at most ");
  refused("--ranks 3 --set parallel.mesh.pipe=3 --set parallel.schedule=interleaved",
          "8 microbatches on 3 ranks, expected a multiple of the ranks");
  refused("--ranks 2 --set parallel.mesh.pipe=2 --set parallel.chunks=2",
          "2 chunks for each rank, expected 1; choose interleaved for others");
  refused(
      "--ranks 8 --set parallel.mesh.pipe=8 --set train.microbatch=4 --set model.layers=6 "
      "--set parallel.schedule=pipedream-2bw",
      "4 microbatches on 8 ranks, expected as many as ranks or more");
  refused("--ranks 2 --set parallel.mesh.pipe=2 --set parallel.schedule=pipedream",
          "a step of 8 microbatches on 1 rank along data, expected one of each");
  refused(
      "--ranks 2 --set parallel.mesh.pipe=2 --set parallel.schedule=pipedream "
      "--set train.leaves=1 --set train.microbatch=0",
      "the stages 0 and 1 share \"wte.weight\", which would be of two ages in them");
  refused("--set parallel.schedule=pipedream-2bw --set parallel.zero=2",
          "expected at most 1 with parallel.schedule = \"pipedream-2bw\"");
  refused("--set parallel.schedule=pipedream --set train.nonfinite=skip",
          "expected \"stop\" with parallel.schedule = \"pipedream\"");
  refused("--set parallel.vertical_sync=true", "parallel.vertical_sync");
  refused(
      "--ranks 2 --set parallel.mesh.pipe=2 --set train.microbatch=4 --set data.classes=4096 "
      "--set train.memory_limit=50000000",
      "47.7 MiB is train.memory_limit: at place 0 along pipe, which needs most, ");
  refused("--ranks 4 --set parallel.mesh.pipe=2 --set parallel.zero=2",
          "given train.microbatch = 2 and leaves of 4 samples; expected leaves of one microbatch");
}

}  // namespace
}  // namespace concord::cli

// Ranks that divide the model, as a user starts them.
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>

#include "concord/base/file.h"
#include "concord/cli/command_test.h"

namespace concord::cli {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class MeshOfRanks : public CommandTest {
 protected:
  MeshOfRanks()
      : CommandTest(R"(
[model]
name = "gpt"
layers = 2
heads = 4
width = 32
dropout = 0.1
[data]
kind = "synthetic"
tokens = true
shape = [16]
samples = 64
classes = 32
[train]
batch = 8
leaves = 2
max_steps = 20
threads = 1
[optimizer]
name = "adamw"
learning_rate = 0.003
clip_norm = 0.5
[output]
dir = "run"
)") {}

  Outcome train(const std::string& options) { return run("train small.toml --json " + options); }
};

TEST_F(MeshOfRanks, TensorAndDataTogetherLearnWhatOneRankLearns) {
  const Outcome alone = train("");
  ASSERT_EQ(alone.code, 0) << alone.err;
  const double loss = alone.last_line()["loss"], train_loss = alone.last_line()["train_loss"];
  for (const char* options :
       {"--ranks 2 --set parallel.mesh={tensor=2}", "--ranks 4 --set parallel.mesh={tensor=4}",
        "--ranks 4 --set parallel.mesh={data=2,tensor=2}",
        "--ranks 2 --set parallel.mesh={tensor=2} "
        "--set parallel.transport=gloo"}) {
    const Outcome outcome = train(std::string(options) + " --set output.dir=other");
    ASSERT_EQ(outcome.code, 0) << options << ": " << outcome.err;
    EXPECT_NEAR(outcome.last_line()["loss"].get<double>(), loss, 1e-5 * loss) << options;
    EXPECT_NEAR(outcome.last_line()["train_loss"].get<double>(), train_loss, 1e-5 * train_loss)
        << options;
    std::filesystem::remove_all(folder_ / "other");
  }
}

// Of sizes at which the plan divides the work of every layer.
TEST_F(MeshOfRanks, WhereNoSumIsDividedTheBitsAreThoseOfOneRank) {
  std::ofstream(folder_ / "mlp.toml") << R"(
[model]
name = "mlp"
hidden = [1024, 512]
[data]
kind = "synthetic"
shape = [64]
samples = 1024
classes = 8
[train]
batch = 512
leaves = 2
max_steps = 4
threads = 1
[output]
dir = "run"
)";
  for (const std::string model :
       {"mlp.toml ",
        "small.toml --set model.width=128 --set data.shape=[64] --set train.batch=16 "
        "--set train.max_steps=4 "}) {
    const std::string options = model + "--json --set parallel.split_sums=false ";
    const Outcome alone = run("train " + options);
    ASSERT_EQ(alone.code, 0) << alone.err;
    std::filesystem::remove_all(folder_ / "run");
    const double work = run("info " + options).last_line()["rank_flops_per_step"];
    for (const int ranks : {2, 4}) {
      const std::string mesh = fmt::format("--ranks {0} --set parallel.mesh={{tensor={0}}}", ranks);
      const Outcome together = run("train " + options + mesh);
      ASSERT_EQ(together.code, 0) << together.err;
      std::filesystem::remove_all(folder_ / "run");
      EXPECT_EQ(together.last_line()["weights_hash"], alone.last_line()["weights_hash"])
          << model << mesh;
      const nlohmann::json part = run("info " + options + mesh).last_line();
      EXPECT_LT(part["rank_flops_per_step"].get<double>(), 0.6 * work) << model << mesh;
    }
  }
}

// An evaluation has ops of its own, such as batch norm by running statistics.
TEST_F(MeshOfRanks, WhereNoSumIsDividedConvolutionsHaveTheBitsOfOneRank) {
  std::ofstream(folder_ / "resnet.toml") << R"(
[model]
name = "resnet_small"
width = 256
blocks = [1, 1]
[data]
kind = "synthetic"
shape = [3, 8, 8]
samples = 64
classes = 4
[train]
batch = 8
max_steps = 4
threads = 1
[parallel]
split_sums = false
[output]
dir = "run"
)";
  const Outcome alone = run("train resnet.toml --json");
  ASSERT_EQ(alone.code, 0) << alone.err;
  for (const int ranks : {2, 4}) {
    const Outcome together = run(fmt::format(
        "train resnet.toml --json --ranks {0} --set parallel.mesh.tensor={0} --set output.dir={0}",
        ranks));
    ASSERT_EQ(together.code, 0) << together.err;
    for (const char* figure : {"weights_hash", "loss", "train_loss"}) {
      EXPECT_EQ(together.last_line()[figure], alone.last_line()[figure]) << figure << ranks;
    }
  }
}

// Of whatever they divide along data, and however they tell each other.
TEST_F(MeshOfRanks, RanksThatDivideStatesComputeTheBitsOfOne) {
  for (const char* optimizer :
       {"", " --set optimizer.name=sgd --set optimizer.clip_norm=0",
        " --set optimizer.ema_decay=0.9", " --set optimizer.name=lamb",
        " --set optimizer.name=lars", " --set optimizer.name=muon --set optimizer.nesterov=false",
        " --set optimizer.name=muon --set optimizer.clip_norm=0"}) {
    const std::string options =
        std::string(optimizer) + " --set train.leaves=4 --set train.max_steps=8 ";
    const Outcome alone = train(options);
    ASSERT_EQ(alone.code, 0) << alone.err;
    for (const char* transport : {"shm", "gloo"}) {
      for (const int zero : {1, 2, 3}) {
        const int ranks = zero == 2 ? 4 : 2;
        const std::string division = fmt::format(
            "--ranks {} --set parallel.transport={} --set parallel.zero={} "
            "--set output.dir=other",
            ranks, transport, zero);
        const Outcome outcome = train(options + division);
        ASSERT_EQ(outcome.code, 0) << division << ": " << outcome.err;
        for (const char* figure : {"weights_hash", "loss", "train_loss"}) {
          EXPECT_EQ(outcome.last_line()[figure], alone.last_line()[figure])
              << figure << " of " << division << optimizer;
        }
        std::filesystem::remove_all(folder_ / "other");
      }
    }
    std::filesystem::remove_all(folder_ / "run");
  }
}

// Averages that are divided come together for every microbatch of an evaluation, of which a rank
// may have fewer than others, or none.
TEST_F(MeshOfRanks, UnequalPartsOfAnEvaluationAreNoMatter) {
  const std::string options = "--set optimizer.ema_decay=0.9 --set train.max_steps=4 ";
  for (const char* work :
       {"--set train.leaves=8 ", "--set train.leaves=4 --set train.microbatch=1 ",
        "--set train.leaves=8 --set data.samples=12 "}) {
    const nlohmann::json alone = train(options + work).last_line();
    for (const char* division :
         {"--ranks 3 --set parallel.zero=1", "--ranks 2 --set parallel.zero=1"}) {
      const Outcome outcome = train(options + work + division +
                                    " --set parallel.transport=gloo --set output.dir=other");
      ASSERT_EQ(outcome.code, 0) << work << division << ": " << outcome.err;
      for (const char* figure : {"weights_hash", "loss"}) {
        EXPECT_EQ(outcome.last_line()[figure], alone[figure]) << figure << work << division;
      }
      std::filesystem::remove_all(folder_ / "other");
    }
    std::filesystem::remove_all(folder_ / "run");
  }
}

// Every mesh goes on from what every other has saved.
TEST_F(MeshOfRanks, ARunIsResumedByAnyOtherMesh) {
  const char* const meshes[] = {"",
                                "--ranks 2",
                                "--ranks 2 --set parallel.mesh={tensor=2}",
                                "--ranks 4 --set parallel.mesh={data=2,tensor=2} "
                                "--set parallel.zero=1 --set parallel.transport=gloo",
                                "--ranks 4 --set parallel.mesh={tensor=4}",
                                "--ranks 2 --set parallel.zero=2 --set parallel.transport=gloo",
                                "--ranks 2 --set parallel.zero=3 --set parallel.transport=gloo"};
  const double loss = train("").last_line()["loss"];
  for (const char* before : meshes) {
    for (const char* after : meshes) {
      const std::string dir = " --set output.dir=other";
      const Outcome first = train(before + dir + " --set train.max_steps=9");
      ASSERT_EQ(first.code, 0) << before << ": " << first.err;
      const Outcome second = train(after + dir + " --resume");
      ASSERT_EQ(second.code, 0) << before << ", then " << after << ": " << second.err;
      EXPECT_NEAR(second.last_line()["loss"].get<double>(), loss, 1e-5 * loss)
          << before << ", then " << after;
      std::filesystem::remove_all(folder_ / "other");
    }
  }
}

// Each tensor is written by one of the ranks, to its place in the same file.
TEST_F(MeshOfRanks, ACheckpointIsTheSameFilesHoweverRanksDivideStates) {
  const auto files = [&](const char* ranks) {
    const Outcome outcome =
        train(std::string(ranks) + " --set train.leaves=4 --set train.checkpoint_every_steps=3");
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    std::map<std::string, std::string> found;
    const std::filesystem::path folder = folder_ / "run" / "checkpoints";
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (entry.path().extension() != ".safetensors") continue;
      found[std::filesystem::relative(entry.path(), folder)] = read_file(entry.path());
    }
    std::filesystem::remove_all(folder_ / "run");
    return found;
  };
  const auto expected = files("");
  EXPECT_GE(expected.size(), 4u);
  EXPECT_EQ(files("--ranks 2 --set parallel.zero=1 --set parallel.transport=gloo"), expected);
  EXPECT_EQ(files("--ranks 4 --set parallel.zero=3 --set parallel.transport=gloo"), expected);
}

// The files may have 20 KiB, as on a disk that is full.
TEST_F(MeshOfRanks, WeightsThatTheyCannotSaveAtTheEndAreAnError) {
  const Outcome outcome = run_script(
      "trap '' XFSZ; ulimit -f 20; \"$concord\" train small.toml --ranks 2 --set parallel.zero=1 "
      "--set parallel.transport=gloo");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("step 8 was not saved: cannot"));
  EXPECT_THAT(outcome.err, HasSubstr("concord: the checkpoint of step 20 was not saved: cannot"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run" / "checkpoints" / "step-00000020"));
}

TEST_F(MeshOfRanks, APlanIsShownSavedAndGivenBack) {
  const Outcome shown =
      run("plan show small.toml --set parallel.mesh={tensor=2} --out plan.toml --json");
  ASSERT_EQ(shown.code, 0) << shown.err;
  const nlohmann::json plan = shown.last_line();
  EXPECT_EQ(plan["ranks"], 2);
  std::map<std::string, std::string> placed;
  for (const nlohmann::json& weight : plan["weights"]) placed[weight["name"]] = weight["tensor"];
  EXPECT_EQ(placed["h.0.mlp.c_fc.weight"], "split(0)");
  EXPECT_EQ(placed["h.0.mlp.c_proj.weight"], "split(1)");
  EXPECT_EQ(placed["h.0.attn.c_attn.weight"], "split(0, 3)");
  const Outcome again = run("plan show small.toml --plan plan.toml --json");
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(again.last_line(), plan);
  EXPECT_EQ(train("--ranks 2 --plan plan.toml").last_line()["weights_hash"],
            train("--ranks 2 --set parallel.mesh={tensor=2} --set output.dir=b")
                .last_line()["weights_hash"]);
}

// A plan is for its model, and all of it; what the configuration says besides is not dropped.
TEST_F(MeshOfRanks, APlanThatDoesNotFitIsRefusedInOneLine) {
  ASSERT_EQ(run("plan show small.toml --set parallel.mesh={tensor=2} --out plan.toml").code, 0);
  const std::string plan = read_file(folder_ / "plan.toml");
  const std::string line = "\"h.0.mlp.c_fc.weight\" = \"tensor:split(0) of [128, 32]\"\n";
  ASSERT_THAT(plan, HasSubstr(line));
  const auto refused = [&](const std::string& text, const std::string& options,
                           const std::string& message) {
    std::ofstream(folder_ / "given.toml") << text;
    const Outcome outcome = run("plan show small.toml --plan given.toml " + options);
    EXPECT_EQ(outcome.code, 1) << message;
    EXPECT_THAT(outcome.err, HasSubstr(message));
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
  };
  const auto with_line = [&](const std::string& other) {
    std::string text = plan;
    return text.replace(text.find(line), line.size(), other);
  };
  refused("", "", "given.toml: a plan without parallel.mesh: expected one that ");
  refused(with_line(""), "",
          "given.toml: the plan lacks the weight \"h.0.mlp.c_fc.weight\" of [128, 32]; make one ");
  refused(with_line(""), "--ranks 1 --set parallel.mesh.tensor=1",
          "given.toml: the plan lacks the weight \"h.0.mlp.c_fc.weight\" of [128, 32]; make one ");
  refused(plan + "\"extra.weight\" = \"tensor:replicate of [2, 3]\"\n", "",
          "given.toml: the plan has a weight \"extra.weight\" of [2, 3], and the model has none");
  refused(with_line("\"h.0.mlp.c_fc.weight\" = \"tensor:split(0) of [64, 32]\"\n"), "",
          "given.toml: the plan has \"h.0.mlp.c_fc.weight\" of [64, 32], and the model has it of "
          "[128, 32]; make one ");
  refused(with_line("\"h.0.mlp.c_fc.weight\" = \"tensor:split(0)\"\n"), "",
          "given.toml: \"h.0.mlp.c_fc.weight\" = \"tensor:split(0)\": expected its shape, too");
  refused(with_line("\"h.0.mlp.c_fc.weight\" = \"tensor:split(1, 5) of [128, 32]\"\n"), "",
          "concord: given.toml: parallel.place: \"h.0.mlp.c_fc.weight\" of [128, 32] cannot be ");
  refused(plan + line, "", ": not valid TOML: \"h.0.mlp.c_fc.weight\" is there a second time\n");
  refused(plan, "--set 'parallel.place={\"wte.weight\"=\"tensor:replicate\"}'",
          "all that --plan given.toml places would be dropped");

  // Whichever command divides a model by it, alone or as ranks.
  for (const std::string command :
       {"plan show small.toml", "info small.toml", "train small.toml --set parallel.mesh.tensor=1",
        "train small.toml --ranks 2", "bench step small.toml --set parallel.mesh.tensor=1",
        "bench step small.toml --ranks 2"}) {
    const Outcome outcome =
        run(command + " --plan plan.toml --set model.width=64 --set output.dir=other");
    EXPECT_EQ(outcome.code, 1) << command;
    const std::string message = "concord: plan.toml: the plan has \"";
    EXPECT_THAT(outcome.err, StartsWith(message)) << command;
    EXPECT_EQ(outcome.err.find("the plan has", message.size()), std::string::npos) << outcome.err;
  }

  // One weight may be placed otherwise, and the mesh set, on purpose.
  const Outcome other =
      run("plan show small.toml --plan plan.toml --json "
          "--set 'parallel.place.h.0.mlp.c_fc.weight=\"tensor:replicate\"'");
  ASSERT_EQ(other.code, 0) << other.err;
  for (const nlohmann::json& weight : other.last_line()["weights"]) {
    if (weight["name"] == "h.0.mlp.c_fc.weight") {
      EXPECT_EQ(weight["tensor"], "replicate");
    }
    if (weight["name"] == "h.1.mlp.c_fc.weight") {
      EXPECT_EQ(weight["tensor"], "split(0)");
    }
  }
  EXPECT_EQ(run("plan show small.toml --plan plan.toml --set parallel.mesh.tensor=4").code, 0);

  const std::pair<const char*, const char*> sections[] = {
      {"place = { \"wte.weight\" = \"tensor:replicate\" }",
       "parallel.place is set, and --plan given.toml places all weights: leave out one of them"},
      {"mesh = { tensor = 4 }", "parallel.mesh has tensor = 4, and --plan given.toml has 2: "},
      {"zero = 1", "parallel.zero = 1, and --plan given.toml has 0: "},
  };
  const std::string config = read_file(folder_ / "small.toml");
  for (const auto& [section, message] : sections) {
    std::ofstream(folder_ / "small.toml") << config << "[parallel]\n" << section << "\n";
    refused(plan, "", message);
  }
}

TEST_F(MeshOfRanks, InfoTellsWhatOneOfThemHoldsAndSends) {
  const nlohmann::json whole = run("info small.toml --json").last_line();
  const nlohmann::json part =
      run("info small.toml --json --set parallel.mesh={tensor=2}").last_line();
  EXPECT_EQ(part["parameter_count"], whole["parameter_count"]);
  const double share =
      part["rank_parameter_count"].get<double>() / whole["parameter_count"].get<double>();
  EXPECT_GT(share, 0.5);
  EXPECT_LT(share, 0.6);
  EXPECT_TRUE(whole["collectives"].empty());
  EXPECT_FALSE(part["collectives"].empty());
}

// Of the gradients of each leaf, where ranks keep their parts of the sums alone; of nothing that
// ranks of one machine read where it lies.
TEST_F(MeshOfRanks, CollectivesAreThoseThatAStepHas) {
  const auto collectives = [&](const std::string& options) {
    std::map<std::pair<std::string, std::string>, double> counts;  // op and what it is of
    const nlohmann::json plan = run("plan show small.toml --json --ranks 2 " + options).last_line();
    for (const nlohmann::json& one : plan["collectives"]) {
      counts[{one["op"], one["of"]}] += one["count"].get<double>();
    }
    return counts;
  };
  const std::string sent = " --set model.width=128 --set parallel.transport=gloo ";
  const std::pair<std::string, std::string> scatters_of_step{"reduce_scatter", "step"},
      scatters{"reduce_scatter", "microbatches"}, gathers_of_step{"all_gather", "step"},
      gathers{"all_gather", "microbatches"};
  auto first = collectives(sent + "--set parallel.zero=1 --set train.leaves=8");
  EXPECT_GT(first[scatters_of_step], 0);
  EXPECT_GT(first[gathers_of_step], 0);
  EXPECT_EQ(first[scatters], 0);
  for (const int leaves : {2, 8}) {
    const std::string options = fmt::format("{} --set train.leaves={}", sent, leaves);
    auto second = collectives(options + " --set parallel.zero=2");
    EXPECT_EQ(second[scatters], first[scatters_of_step] * leaves / 2) << leaves;
    EXPECT_EQ(second[gathers_of_step], first[gathers_of_step]) << leaves;
    auto third = collectives(options + " --set parallel.zero=3");
    EXPECT_EQ(third[scatters], first[scatters_of_step] * leaves / 2) << leaves;
    EXPECT_GE(third[gathers], first[gathers_of_step] * leaves / 2) << leaves;
  }
  auto shared = collectives("--set model.width=128 --set parallel.zero=3");
  EXPECT_EQ(shared[gathers] + shared[gathers_of_step], 0);
}

TEST_F(MeshOfRanks, APlanTellsTheShareOfARankAndWhatIsNotDivided) {
  const std::string options = "plan show small.toml --set model.width=128 --ranks 2 ";
  const std::string zero = options + "--set parallel.zero=3 --set parallel.transport=gloo ";
  EXPECT_THAT(run(zero).out, HasSubstr("mesh {data: 2} of 2 ranks, zero 3\n"));
  double smallest = 1;
  const nlohmann::json plan = run(zero + "--json").last_line();
  for (const nlohmann::json& weight : plan["weights"]) {
    smallest = std::min(smallest, weight["share"].get<double>());
  }
  EXPECT_NEAR(smallest, 0.5, 0.01);
  EXPECT_TRUE(
      run(options + "--set parallel.mesh.tensor=2 --json").last_line()["undivided"].empty());
}

// Each does a part of what one would do, but for what all do.
TEST_F(MeshOfRanks, TheWorkOfAStepIsThatOfOneRank) {
  std::ofstream(folder_ / "mlp.toml") << "[model]\nname = \"mlp\"\nhidden = [256]\n"
                                         "[data]\nkind = \"synthetic\"\nshape = [64]\n"
                                         "[train]\nbatch = 64\nleaves = 4\n";
  const double work = run("info mlp.toml --json").last_line()["flops_per_step"];
  for (const char* ranks : {"--ranks 2", "--ranks 2 --set parallel.mesh.tensor=2"}) {
    const nlohmann::json info = run(fmt::format("info mlp.toml --json {}", ranks)).last_line();
    EXPECT_NEAR(info["flops_per_step"].get<double>(), work, 0.01 * work) << ranks;
    EXPECT_NEAR(2 * info["rank_flops_per_step"].get<double>(), work, 0.05 * work) << ranks;
  }
}

// Rajbhandari et al. 2020, in f32, where Adam's states are twice as large as the parameters.
TEST_F(MeshOfRanks, DividedStatesTakeTheMemoryOfTheFormula) {
  for (const int zero : {0, 1, 2, 3}) {
    const nlohmann::json info =
        run(fmt::format("info small.toml --json --ranks 2 --set parallel.transport=gloo "
                        "--set model.width=512 --set model.layers=12 --set parallel.zero={}",
                        zero))
            .last_line();
    const double parameters = 4 * info["parameter_count"].get<double>();
    const double optimizer = 4 * info["optimizer_state_count"].get<double>();
    const double expected = parameters / (zero < 3 ? 1 : 2) + parameters / (zero < 2 ? 1 : 2) +
                            optimizer / (zero < 1 ? 1 : 2);
    const double held = zero < 3 ? parameters : parameters / 2;
    EXPECT_NEAR(4 * info["rank_parameter_count"].get<double>(), held, 0.01 * held) << zero;
    const nlohmann::json memory = info["memory"];
    EXPECT_NEAR(memory["states"].get<double>() + memory["gradients"].get<double>(), expected,
                0.05 * expected)
        << zero;
  }
}

// Biases that are added to summands, of which each rank has a part.
TEST_F(MeshOfRanks, ABiasOfASumMayBeDivided) {
  const Outcome outcome = train(
      "--ranks 2 --set parallel.mesh={tensor=2} --set train.max_steps=2 "
      "--set 'parallel.place={\"h.*.c_proj.bias\"=\"tensor:split(0)\"}'");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

TEST_F(MeshOfRanks, WeightsThatTheMeshDoesNotDivideAreTold) {
  std::ofstream(folder_ / "odd.toml") << R"(
[model]
name = "mlp"
[data]
kind = "synthetic"
shape = [15]
samples = 16
[train]
batch = 8
max_steps = 2
[parallel]
mesh = { tensor = 2 }
)";
  Outcome outcome = run("train odd.toml --ranks 2 --set model.hidden=[7,32]");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::string shown = run("plan show odd.toml --set model.hidden=[7,32]").out;
  EXPECT_THAT(shown, HasSubstr("[7, 15]        tensor: replicate  not divided by the mesh\n"));
  EXPECT_THAT(shown, HasSubstr("[32, 7]        tensor: split(0)\n"));
  EXPECT_THAT(outcome.err,
              HasSubstr("parallel.mesh: tensor = 2 does not divide 1 weight, which every rank has "
                        "all of; the largest is \"fc1.weight\" of [7, 15]\n"));
  outcome = run(
      "train odd.toml --ranks 2 --set model.hidden=[7] --set data.classes=5 --set output.dir=b");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err,
              HasSubstr("concord: parallel.mesh: tensor = 2 divides no weight and no op: "
                        "\"fc1.weight\" of [7, 15] can be cut by "));
}

TEST_F(MeshOfRanks, WhatCannotBeIsRefusedInOneLine) {
  const std::pair<const char*, const char*> mistakes[] = {
      {"--ranks 3 --set parallel.mesh={tensor=2}",
       "concord: parallel.mesh: {data: 1, tensor: 2} is for 2 ranks, and there are 3: start 2, or "
       "set axes whose product is 3\n"},
      {"--set parallel.mesh={rows=2}", "there is no \"rows\"\n"},
      {"--ranks 2 --set parallel.mesh={tensor=2} "
       "--set 'parallel.place={\"h.*.mlp.c_fc.wieght\"=\"tensor:split(0)\"}'",
       "concord: parallel.place: no weight is named \"h.*.mlp.c_fc.wieght\"; did you mean "},
      {"--ranks 2 --set parallel.mesh={tensor=2} "
       "--set 'parallel.place={\"h.0.mlp.c_fc.weight\"=\"tensor:split(7)\"}'",
       "concord: parallel.place: \"h.0.mlp.c_fc.weight\" of [128, 32] cannot be split(7) on the 2 "
       "ranks of axis tensor: its ops allow replicate, split(0)"},
      {"--ranks 2 --set parallel.mesh={tensor=2} "
       "--set 'parallel.place={\"optimizer.wte.weight\"=\"tensor:split(0)\"}'",
       "; did you mean \"wte.weight\"? (`concord info` lists them)\n"},
      {"--set parallel.mesh={data=65536,tensor=65536}",
       ": parallel.mesh = { \"data\" = 65536, \"tensor\" = 65536 }: expected axes of at most 65536 "
       "ranks in all\n"},
      {"--set parallel.mesh={data=32768,tensor=65536}", ": expected axes of at most 65536 ranks "},
      {"--set parallel.mesh.tensor=2.0",
       "concord: --set parallel.mesh.tensor=2.0: parallel.mesh: \"tensor\" = 2.0 (float): expected "
       "an integer\n"},
      {"--set parallel.mesh.tensor=two",
       ": parallel.mesh: \"tensor\" = \"two\" (string): expected an integer\n"},
      {"--ranks 2 --set parallel.mesh={tensor=2} "
       "--set 'parallel.place={\"*\"=\"tensor:replicate\"}'",
       "concord: parallel.place: with these placements tensor = 2 divides no weight and no op: "},
      {"--ranks 2 --set parallel.mesh={tensor=2} "
       "--set 'parallel.place={\"h.0.mlp.c_fc.weight\"=\"pipe:split(0)\"}'",
       ": parallel.place: \"h.0.mlp.c_fc.weight\" = \"pipe:split(0)\": expected the axis "
       "\"tensor\", and given \"pipe\" (the axes are data and tensor; what ranks along data "
       "divide, parallel.zero says)\n"},
      {"--set 'parallel.place={\"h.0.mlp.c_fc.weight\"=\"data:split(0)\"}'",
       "expected the axis \"tensor\", and given \"data\" "},
      {"--set 'parallel.place={\"h.0.mlp.c_fc.weight\"=3}'",
       ": parallel.place: \"h.0.mlp.c_fc.weight\" = 3 (integer): expected a string\n"},
      {"--set 'parallel.place={\"h.0.mlp.c_fc.weight\"=\"tensor:split(2)\"}'",
       "concord: parallel.place: \"h.0.mlp.c_fc.weight\" of [128, 32] cannot be split(2) along "
       "tensor: expected replicate or a dim from 0 to 1\n"},
      {"--ranks 2 --set parallel.mesh={tensor=2} --set parallel.sync=local",
       "expected \"all_reduce\" where parallel.mesh has an axis tensor\n"},
      {"--ranks 2 --set parallel.zero=4", "parallel.zero = 4: expected an integer from 0 to 3\n"},
      {"--ranks 2 --set parallel.zero=1 --set parallel.sync=local",
       "expected \"all_reduce\" where parallel.zero divides states\n"},
      {"--ranks 2 --set parallel.zero=2 --set train.microbatch=2",
       "parallel.zero = 2 divides the gradients of each leaf over the ranks: given "
       "train.microbatch = 2 and leaves of 4 samples; expected leaves of one microbatch, such as "
       "train.leaves = 4\n"},
      {"--ranks 8 --set parallel.mesh={data=4,tensor=2}",
       "concord: 4 ranks along data share the leaves of a step, but train.leaves = 2: start at "
       "most "
       "4, or set train.leaves = 4\n"},
      {"--ranks 3 --set train.leaves=4 --set parallel.zero=2",
       "given 3 ranks along data; expected a power of two, such as 2\n"},
  };
  for (const auto& [options, message] : mistakes) {
    const Outcome outcome = train(options);
    EXPECT_EQ(outcome.code, 1) << options;
    EXPECT_THAT(outcome.err, HasSubstr(message)) << options;
  }
  // Nor are they left unread by a command that has no ranks.
  const Outcome evaluated = run(
      "eval small.toml --checkpoint run --set 'parallel.place={\"wte.weight\"=\"tensor:cut(0)\"}'");
  EXPECT_EQ(evaluated.code, 1);
  EXPECT_THAT(evaluated.err, HasSubstr(": parallel.place: \"wte.weight\" = \"tensor:cut(0)\": "));
}

}  // namespace
}  // namespace concord::cli

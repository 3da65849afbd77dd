// Gradients that are compressed on their way, as a user asks for it.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "concord/base/file.h"
#include "concord/cli/command_test.h"

namespace concord::cli {
namespace {

using testing::HasSubstr;

class Compression : public CommandTest {
 protected:
  Compression()
      : CommandTest(R"(
[model]
name = "mlp"
hidden = [200, 300]
dropout = 0.1
[data]
kind = "synthetic"
shape = [1, 8, 8]
samples = 244
classes = 4
[train]
batch = 64
leaves = 8
epochs = 2
threads = 1
[optimizer]
name = "adamw"
learning_rate = 0.003
clip_norm = 0.5
[output]
dir = "run"
)") {}

  Outcome train(const std::string& options) { return run("train small.toml --json " + options); }

  std::string hash_of(const std::string& options) {
    std::filesystem::remove_all(folder_ / "run");
    const Outcome outcome = train(options);
    EXPECT_EQ(outcome.code, 0) << options << ": " << outcome.err;
    return outcome.code == 0 ? outcome.last_line()["weights_hash"].get<std::string>() : outcome.err;
  }

  std::string error_of(const std::string& options) {
    const Outcome outcome = train(options);
    EXPECT_NE(outcome.code, 0) << options;
    return outcome.err;
  }
};

// The last step of an epoch has no leaf for the last ranks, and half a leaf for the one before.
TEST_F(Compression, AnyRanksComputeTheBitsOfOne) {
  for (const auto& [codec, way] :
       {std::pair("sign", "gather"), std::pair("sign", "shares"), std::pair("qsgd8", "shares"),
        std::pair("topk:density=0.01", "gather"), std::pair("powersgd", "auto")}) {
    const std::string work = fmt::format(
        "--set parallel.codec={} --set parallel.encoders=4 --set parallel.codec_way={} ", codec,
        way);
    const std::string alone = hash_of(work);
    for (const char* ranks : {"--ranks 2", "--ranks 4 --set parallel.transport=gloo"}) {
      EXPECT_EQ(hash_of(work + ranks), alone) << work << ranks;
    }
  }
}

TEST_F(Compression, OnEveryMesh) {
  const std::string work = "--set parallel.codec=sign --set parallel.encoders=4 ";
  const std::string alone = hash_of(work);
  EXPECT_NE(hash_of(""), alone);
  for (const char* way :
       {"--ranks 4 --set parallel.zero=1", "--ranks 2 --set parallel.transport=gloo",
        "--ranks 2 --set parallel.mesh.pipe=2",
        "--ranks 4 --set parallel.mesh.pipe=2 --set parallel.schedule=zb-h1",
        "--ranks 4 --set parallel.mesh.pipe=2 --set parallel.zero=1 --set parallel.transport=gloo",
        "--ranks 2 --set parallel.bucket_bytes=2000", "--set train.recompute=full",
        "--ranks 2 --set parallel.offload=optimizer"}) {
    EXPECT_EQ(hash_of(work + way), alone) << way;
  }
  const std::string divided = hash_of(work + "--ranks 2 --set parallel.mesh.tensor=2");
  EXPECT_EQ(hash_of(work + "--ranks 4 --set parallel.mesh.tensor=2"), divided);
  EXPECT_EQ(hash_of(work + "--ranks 4 --set parallel.mesh.tensor=2 --set parallel.transport=gloo"),
            divided);
}

// The first and the last stage share the words' vectors; steps overlap.
TEST_F(Compression, OfAModelInStages) {
  write_file_atomically(folder_ / "small.toml", R"(
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
classes = 64
[train]
batch = 16
leaves = 8
max_steps = 6
threads = 1
[optimizer]
name = "adamw"
learning_rate = 0.003
clip_norm = 0.5
ema_decay = 0.9
[output]
dir = "run"
)");
  for (const char* work : {"--set parallel.codec=sign --set parallel.encoders=2 ",
                           "--set parallel.codec=powersgd --set parallel.encoders=2 ",
                           "--set parallel.codec=sign --set parallel.encoders=2 "
                           "--set parallel.schedule=pipedream-2bw "}) {
    const std::string alone = hash_of(work);
    for (const char* way : {"--ranks 2 --set parallel.mesh.pipe=2",
                            "--ranks 4 --set parallel.mesh.pipe=2 --set parallel.transport=gloo"}) {
      EXPECT_EQ(hash_of(work + std::string(way)), alone) << work << way;
    }
  }
}

TEST_F(Compression, MicrobatchesAreSummedBeforeTheyAreEncoded) {
  const std::string work =
      "--set parallel.codec=sign --set parallel.encoders=4 --set train.microbatch=3 ";
  const std::string alone = hash_of(work);
  EXPECT_EQ(hash_of(work + "--ranks 2"), alone);
  EXPECT_EQ(hash_of(work + "--ranks 4 --set parallel.transport=gloo"), alone);
}

// What encoders keep is in the checkpoint, whoever has which of them.
TEST_F(Compression, ARunGoesOnOnOtherRanks) {
  for (const char* codec : {"sign", "topk:density=0.01,momentum=0.9", "powersgd"}) {
    const std::string work = fmt::format("--set parallel.codec={} ", codec);
    const std::string unbroken = hash_of(work + "--ranks 4");
    std::filesystem::remove_all(folder_ / "run");
    ASSERT_EQ(train(work + "--ranks 4 --set train.max_steps=3").code, 0);
    ASSERT_EQ(train(work + "--ranks 2 --set train.max_steps=5 --resume").code, 0);
    const Outcome last = train(work + "--resume");
    ASSERT_EQ(last.code, 0) << last.err;
    EXPECT_EQ(last.last_line()["weights_hash"], unbroken) << codec;
  }
}

// Factors of matrices of which ranks have other parts then are found anew.
TEST_F(Compression, ARunGoesOnWhereRanksDivideWeights) {
  for (const char* codec : {"sign", "powersgd"}) {
    std::filesystem::remove_all(folder_ / "run");
    const std::string work = fmt::format("--set parallel.codec={} --ranks 2 ", codec);
    ASSERT_EQ(train(work + "--set parallel.encoders=2 --set train.max_steps=3").code, 0);
    const Outcome divided = train(work + "--set parallel.mesh.tensor=2 --resume");
    EXPECT_EQ(divided.code, 0) << codec << divided.err;
  }
}

TEST_F(Compression, PatternsSayWhatIsCompressedHow) {
  const std::string all = hash_of("--ranks 2 --set parallel.codec=sign");
  EXPECT_EQ(hash_of("--ranks 2 --set 'parallel.codecs={\"*\"=\"sign\"}'"), all);
  EXPECT_EQ(hash_of("--ranks 2 --set parallel.codec=sign --set 'parallel.codecs={\"*\"=\"none\"}'"),
            hash_of("--ranks 2"));
  EXPECT_NE(
      hash_of("--ranks 2 --set parallel.codec=sign --set 'parallel.codecs={\"fc2*\"=\"none\"}'"),
      all);
}

TEST_F(Compression, PlansSayWhatIsCompressedHow) {
  const Outcome shown =
      run("plan show small.toml --ranks 2 --set parallel.codec=powersgd:rank=2 "
          "--set 'parallel.codecs={\"fc2*\"=\"sign\"}'");
  ASSERT_EQ(shown.code, 0) << shown.err;
  EXPECT_THAT(shown.out, testing::ContainsRegex("fc1.weight .*by powersgd:rank=2"));
  EXPECT_THAT(shown.out, testing::ContainsRegex("fc2.weight .*by sign"));
  EXPECT_THAT(shown.out, testing::ContainsRegex("fc1.bias +\\[200\\] +tensor: replicate\n"));
}

TEST_F(Compression, WhatCannotBeIsRefusedInOneLine) {
  const Outcome simulated = run("simulate small.toml --ranks 2 --set parallel.codec=sign");
  EXPECT_NE(simulated.code, 0);
  EXPECT_THAT(simulated.err, HasSubstr("simulate foresees no compression"));
  EXPECT_THAT(error_of("--set parallel.codec=zip"), HasSubstr("parallel.codec"));
  EXPECT_THAT(error_of("--set parallel.codec=powersgd:rank=0"), HasSubstr("with R from 1 to 64"));
  EXPECT_THAT(error_of("--set parallel.codec=vote --set parallel.codec_way=gather"),
              HasSubstr("expected \"auto\" or \"shares\""));
  EXPECT_THAT(error_of("--set parallel.encoders=2"), HasSubstr("no parallel.codec"));
  EXPECT_THAT(error_of("--set parallel.codec_way=shares"), HasSubstr("no parallel.codec"));
  EXPECT_THAT(error_of("--set 'parallel.codecs={\"fc9*\"=\"sign\"}'"),
              HasSubstr("no parameter fits \"fc9*\"; the nearest is \"fc"));
  EXPECT_THAT(error_of("--set parallel.codec=topk:density=2"), HasSubstr("density"));
  EXPECT_THAT(error_of("--set 'parallel.codecs={\"a*\"=\"topk:colour=2\"}'"), HasSubstr("colour"));
  EXPECT_THAT(error_of("--set parallel.codec=sign --set parallel.encoders=3"),
              HasSubstr("parallel.encoders = 3: expected 0 or a power of two"));
  EXPECT_THAT(error_of("--ranks 4 --set parallel.codec=sign --set parallel.encoders=2"),
              HasSubstr("parallel.encoders = 2, of 4 ranks along data"));
  EXPECT_THAT(error_of("--ranks 3 --set parallel.codec=sign"),
              HasSubstr("parallel.encoders = 3, of 3 ranks along data"));
  EXPECT_THAT(error_of("--set parallel.codec=sign --set parallel.encoders=16"),
              HasSubstr("train.leaves = 8"));
  EXPECT_THAT(error_of("--ranks 2 --set parallel.codec=sign --set parallel.leaves=[3,5]"),
              HasSubstr("expected equally many leaves on each rank"));
  EXPECT_THAT(error_of("--ranks 2 --set parallel.codec=sign --set parallel.zero=2"),
              HasSubstr("parallel.zero = 0 or 1"));
  EXPECT_THAT(error_of("--ranks 2 --set parallel.codec=sign --set parallel.sync=local"),
              HasSubstr("parallel.sync"));
  EXPECT_THAT(error_of("--ranks 2 --set parallel.codec=sign --set train.nonfinite=skip"),
              HasSubstr("train.nonfinite"));
}

}  // namespace
}  // namespace concord::cli

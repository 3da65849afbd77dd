#include "concord/train/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/text.h"
#include "concord/data/train_bpe.h"
#include "concord/data/utf8.h"
#include "concord/train/trainer.h"

namespace concord::train {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// A gpt that has learned a text by heart in which every character follows from the one before it;
// one is of two bytes, and one of three. Windows of 16 bytes begin anywhere in its 17, so that a
// place tells nothing.
class GenerateTest : public testing::Test {
 protected:
  static constexpr std::string_view kLine = "abcd\u00e9fgh\u20acjklmn";

  GenerateTest()
      : folder_(std::filesystem::path(testing::TempDir()) /
                (std::string("concord_generate_") +
                 testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~GenerateTest() override { std::filesystem::remove_all(folder_); }

  // Trains; `keys` are of [model] and what follows.
  void learn(const std::string& keys) {
    std::string text;
    for (int i = 0; i < 80; ++i) text += kLine;
    write_file_atomically(folder_ / "train.txt", text);
    config_ = parse_config(
        fmt::format("[output]\ndir = {}\ntensorboard = false\n"
                    "[data]\nkind = \"text\"\ndir = {}\nlength = 16\n{}"
                    "[train]\nbatch = 8\nepochs = 16\nthreads = 1\neval_every_epochs = 0\n"
                    "[optimizer]\nname = \"adamw\"\nlearning_rate = 0.02\n"
                    "[model]\nname = \"gpt\"\nlayers = 1\nwidth = 16\nheads = 2\n",
                    quote((folder_ / "run").string()), quote(folder_.string()), keys),
        "gpt.toml");
    TrainObserver observer;
    train(config_, {}, observer);
  }

  // The same on data made in memory; `keys` are of [data] and what follows.
  void learn_from_no_text(const std::string& keys) {
    config_ = parse_config(
        fmt::format("[output]\ndir = {}\ntensorboard = false\n[train]\nepochs = 1\nthreads = 1\n"
                    "[data]\nkind = \"synthetic\"\nsamples = 32\n{}",
                    quote((folder_ / "run").string()), keys),
        "other.toml");
    std::filesystem::remove_all(folder_ / "run");
    TrainObserver observer;
    train(config_, {}, observer);
  }

  Generation generate(const GenerationRequest& request) {
    return train::generate(config_, folder_ / "run", request);
  }
  std::string error(const GenerationRequest& request) {
    try {
      generate(request);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }

  std::filesystem::path folder_;
  Config config_;
};

// Far beyond the 16 tokens that the model sees, and through every window.
TEST_F(GenerateTest, GoesOnBeyondWhatTheModelSees) {
  learn("");
  std::string parts;
  const Generation generation =
      train::generate(config_, folder_ / "run", {.prompt = "fgh", .tokens = 100, .temperature = 0},
                      [&](std::string_view part) {
                        EXPECT_EQ(data::valid_utf8_prefix(part), part.size());
                        parts += part;
                      });
  EXPECT_EQ(parts, generation.text);
  EXPECT_EQ(generation.tokens, 100);
  EXPECT_EQ(generation.prompt_tokens, 3);
  std::string expected = "\u20acjklmn";
  while (expected.size() < 100) expected += kLine;
  EXPECT_THAT(expected, StartsWith(generation.text.substr(0, 96)));

  // A prompt that is longer than what the model sees.
  const Generation after_long = generate({.prompt = expected, .tokens = 7, .temperature = 0});
  EXPECT_EQ(after_long.prompt_tokens, expected.size());
  EXPECT_EQ(after_long.text, "abcd\u00e9f");
}

TEST_F(GenerateTest, TheSeedDecidesAndEachPlaceHasItsOwnDraw) {
  learn("");
  const GenerationRequest request{.prompt = "ab", .tokens = 60, .temperature = 3, .seed = 5};
  const std::string text = generate(request).text;
  EXPECT_EQ(generate(request).text, text);
  GenerationRequest other = request;
  other.seed = 6;
  EXPECT_NE(generate(other).text, text);
  other = request;
  other.top_k = 1;
  other.tokens = 20;
  GenerationRequest greedy = other;
  greedy.temperature = 0;
  EXPECT_EQ(generate(other).text, generate(greedy).text);
}

TEST_F(GenerateTest, TakesPairsOfBytesAndEndsAtASpecialToken) {
  std::string text;
  for (int i = 0; i < 4; ++i) text += kLine;
  const std::vector<std::string> texts = {text};
  const data::Tokenizer tokenizer =
      data::train_bpe(texts, {.vocabulary_size = 262, .special_tokens = {"klmn"}});
  write_file_atomically(folder_ / "tokenizer.json", tokenizer.to_json().dump());
  learn("tokenizer = " + quote((folder_ / "tokenizer.json").string()) + "\n");
  const Generation generation =
      generate({.prompt = std::string(kLine), .tokens = 50, .temperature = 0});
  EXPECT_EQ(generation.text, "abcd\u00e9fgh\u20acj");
  EXPECT_LT(generation.tokens, 12);
}

TEST_F(GenerateTest, RefusesWhatItCannotContinue) {
  learn("");
  EXPECT_THAT(error({.prompt = ""}), HasSubstr("the prompt is empty"));
  EXPECT_THAT(error({.prompt = "a\xff"}), HasSubstr("the prompt: not UTF-8: byte 0xff"));
  EXPECT_THAT(error({.prompt = "a", .tokens = 0}), HasSubstr("0 tokens: expected at least 1"));
  EXPECT_THAT(error({.prompt = "a", .temperature = -1}), HasSubstr("a temperature of -1"));
  EXPECT_THAT(error({.prompt = "a", .top_k = 0}), HasSubstr("expected 1 to 256, the vocabulary"));
  EXPECT_THAT(error({.prompt = "a", .top_k = 257}), HasSubstr("the 257 likeliest tokens"));
  learn_from_no_text("");
  EXPECT_THAT(error({.prompt = "a"}), HasSubstr("holds no language model"));
  EXPECT_THAT(error({.prompt = "a"}), HasSubstr("give it files (--input)"));
}

TEST_F(GenerateTest, AModelOfTokensThatAreNoTextIsToldApart) {
  learn_from_no_text(
      "tokens = true\nshape = [8]\n[model]\nname = \"bert\"\nlayers = 1\nheads = 1\n");
  EXPECT_THAT(error({.prompt = "a"}), HasSubstr("train one with data.kind = \"text\""));
  try {
    predict(config_, folder_ / "run", {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("nor can it be given text"));
  }
}

}  // namespace
}  // namespace concord::train

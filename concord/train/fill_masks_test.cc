#include "concord/train/fill_masks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/text.h"
#include "concord/train/trainer.h"

namespace concord::train {
namespace {

using testing::HasSubstr;

// A small bert that has learned the alphabet by heart.
class FillMasksTest : public testing::Test {
 protected:
  FillMasksTest()
      : folder_(std::filesystem::path(testing::TempDir()) /
                (std::string("concord_") +
                 testing::UnitTest::GetInstance()->current_test_info()->name())),
        config_(parse_config(fmt::format(R"(
[model]
name = "bert"
layers = 1
width = 16
heads = 2
[data]
kind = "text"
dir = {0}
length = 16
[train]
batch = 8
epochs = 12
threads = 1
[optimizer]
name = "adamw"
learning_rate = 0.02
[output]
dir = {0}
tensorboard = false
)",
                                         quote(folder_.string())),
                             "bert.toml")) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    std::string text;
    for (int i = 0; i < 60; ++i) text += "abcdefghijklmnop";
    write_file_atomically(folder_ / "train.txt", text);
    TrainObserver observer;
    train(config_, {}, observer);
  }
  ~FillMasksTest() override { std::filesystem::remove_all(folder_); }

  std::string error(std::string_view text) const {
    try {
      fill_masks(config_, folder_, text);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }

  std::filesystem::path folder_;
  Config config_;
};

TEST_F(FillMasksTest, FillsEachPlaceOfATextOfAnyLength) {
  EXPECT_EQ(fill_masks(config_, folder_, "abc[MASK]efghijklmn[MASK]p").text, "abcdefghijklmnop");
  const FilledText filled = fill_masks(config_, folder_, "abcdefgh[MASK]jk", 3);
  EXPECT_EQ(filled.text, "abcdefghijk");
  ASSERT_EQ(filled.places.size(), 1u);
  ASSERT_EQ(filled.places[0].size(), 3u);
  EXPECT_EQ(filled.places[0][0].id, 'i');
  EXPECT_EQ(filled.places[0][0].token, "i");
  EXPECT_GT(filled.places[0][0].probability, 0.5);
  EXPECT_LE(filled.places[0][1].probability, filled.places[0][0].probability);
}

TEST_F(FillMasksTest, SaysWhatATextLacks) {
  EXPECT_THAT(error("abc"), HasSubstr("hides no token: expected \"[MASK]\" in place"));
  EXPECT_THAT(error("abcdefghijklmnop[MASK]"),
              HasSubstr("17 tokens: the model takes at most 16 (data.length)"));
  EXPECT_THAT(error("\xff[MASK]"), HasSubstr("the text: not UTF-8"));
}

}  // namespace
}  // namespace concord::train

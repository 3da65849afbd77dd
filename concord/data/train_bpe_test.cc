#include "concord/data/train_bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "concord/base/philox.h"
#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using Merge = std::pair<TokenId, TokenId>;

// Algorithm 1 of Sennrich et al. as it stands there, all pairs counted anew for each merge, on
// words divided by spaces, which stay in front.
std::vector<Merge> naive_merges(const std::string& text, std::size_t count) {
  std::vector<std::vector<TokenId>> words;
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char byte : text) {
    if (words.empty() || byte == ' ') words.emplace_back();
    words.back().push_back(static_cast<std::uint8_t>(byte));
  }
  std::vector<Merge> merges;
  while (merges.size() < count) {
    std::map<Merge, std::int64_t> counts;
    for (const auto& word : words) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    }
    // The first of equal ones, in the order of the pairs.
    const Merge best =
        std::ranges::max_element(counts, {}, [](const auto& entry) { return entry.second; })->first;
    merges.push_back(best);
    const std::string merged = tokens[static_cast<std::size_t>(best.first)] +
                               tokens[static_cast<std::size_t>(best.second)];
    const auto place = std::ranges::find(tokens, merged);
    const auto id = static_cast<TokenId>(place - tokens.begin());
    if (place == tokens.end()) tokens.push_back(merged);
    for (auto& word : words) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) {
        if (Merge(word[i], word[i + 1]) != best) continue;
        word[i] = id;
        word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      }
    }
  }
  return merges;
}

// Words of few letters, so that pairs overlap and counts are often equal.
std::string random_words(int count) {
  const RandomStream stream{3, 0, 0};
  std::string text;
  for (int i = 0; i < count; ++i) {
    const PhiloxBlock draw = stream.block(static_cast<std::uint32_t>(i));
    text += ' ';
    for (std::uint32_t letter = 0; letter <= draw[0] % 9; ++letter) {
      text += static_cast<char>('a' + (draw[1] >> letter) % 2);
    }
  }
  return text;
}

TEST(TrainBpe, LearnsTheMergesOfTheDefinition) {
  const std::vector<std::string> texts = {random_words(400)};
  const Tokenizer tokenizer = train_bpe(texts, {.vocabulary_size = 330, .special_tokens = {}});
  EXPECT_EQ(tokenizer.vocabulary_size(), 330);
  const std::vector<Merge>& merges = tokenizer.parts().merges;
  EXPECT_EQ(merges, naive_merges(texts[0], merges.size()));
}

TEST(TrainBpe, GivesBytesMergesAndSpecialTokensAndEncodesAnything) {
  const std::vector<std::string> texts = {"the cat, the hat", "the mat"};
  int last = -1;
  const Tokenizer tokenizer = train_bpe(texts, {.vocabulary_size = 260,
                                                .special_tokens = {"<|endoftext|>"},
                                                .progress = [&](int learned, int wanted) {
                                                  EXPECT_GE(learned, last);
                                                  EXPECT_EQ(wanted, 3);
                                                  last = learned;
                                                }});
  EXPECT_EQ(last, 3);
  EXPECT_EQ(tokenizer.find("<|endoftext|>"), 259);
  EXPECT_THAT(tokenizer.encode("A<|endoftext|>"), testing::ElementsAre('A', 259));
  const std::string text = "the cat\n\u00e9\U0001f600  ";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  EXPECT_LT(tokenizer.encode("the the").size(), 7u);
}

TEST(TrainBpe, StopsWhereTheTextIsTooShortOrTheSizeTooSmall) {
  const std::vector<std::string> texts = {"abab"};
  EXPECT_EQ(error_of([&] { train_bpe(texts, {.vocabulary_size = 300, .special_tokens = {}}); }),
            "a vocabulary of 300 tokens: the pairs that occur twice in the text give 257: ask for "
            "at most that, or give more text");
  EXPECT_EQ(
      error_of([&] { train_bpe(texts, {.vocabulary_size = 256}); }),
      "a vocabulary of 256 tokens: expected at least 257, for the bytes and 1 special tokens");
  EXPECT_THAT(error_of([&] {
                train_bpe(texts, {.special_tokens = {"x", "x"}});
              }),
              testing::StartsWith("the special token \"x\": expected different ones"));
}

}  // namespace
}  // namespace concord::data

#include "concord/data/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "concord/base/file.h"
#include "concord/data/test_data.h"
#include "concord/data/test_files.h"
#include "concord/data/utf8.h"

namespace concord::data {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

json goldens() {
  return json::parse(read_file(CONCORD_SOURCE_DIR "/tests/golden/tokenizers.json"));
}

// Bytes that are not UTF-8 as the public package shows them.
std::string readable(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const std::size_t valid = valid_utf8_prefix(text);
    result.append(text.substr(0, valid));
    if (valid < text.size()) result += "\uFFFD";
    text.remove_prefix(std::min(valid + 1, text.size()));
  }
  return result;
}

TEST(Tokenizer, EncodesAndDecodesAsThePublicPackageDoes) {
  const json golden = goldens();
  for (const auto& [name, entry] : golden["tokenizers"].items()) {
    const Tokenizer read = Tokenizer::from_json(entry["file"], name);
    const Tokenizer again = Tokenizer::parse(read.to_json().dump(), name);
    EXPECT_EQ(again.to_json(), read.to_json());
    for (std::size_t i = 0; i < golden["texts"].size(); ++i) {
      const auto text = golden["texts"][i].get<std::string>();
      const auto ids = entry["ids"][i].get<std::vector<TokenId>>();
      EXPECT_EQ(read.encode(text), ids) << name << ": " << text;
      EXPECT_EQ(again.encode(text), ids) << name << ": " << text;
      EXPECT_EQ(readable(read.decode(ids)), entry["decoded"][i].get<std::string>()) << name;
    }
  }
}

TEST(Tokenizer, LongTextsEncodeWordByWord) {
  const Tokenizer tokenizer = Tokenizer::from_json(goldens()["tokenizers"]["gpt2"]["file"], "gpt2");
  const std::vector<TokenId> once = tokenizer.encode(" the cat that sat\n");
  std::string text;
  std::vector<TokenId> ids;
  for (int i = 0; i < 1000; ++i) {
    text += " the cat that sat\n";
    ids.insert(ids.end(), once.begin(), once.end());
  }
  EXPECT_EQ(tokenizer.encode(text), ids);
  EXPECT_EQ(tokenizer.decode(ids), text);
}

TEST(Tokenizer, BytesAreTheirValues) {
  const Tokenizer bytes = Tokenizer::bytes();
  std::string all;
  std::vector<TokenId> ids;
  for (int byte = 0; byte < 256; ++byte) {
    all += static_cast<char>(byte);
    ids.push_back(byte);
  }
  EXPECT_EQ(bytes.vocabulary_size(), 256);
  EXPECT_EQ(bytes.encode(all), ids);
  EXPECT_EQ(bytes.decode(ids), all);
  const Tokenizer saved = Tokenizer::parse(bytes.to_json().dump(), "saved");
  EXPECT_EQ(saved.encode(all), ids);
}

TEST(Tokenizer, FindsTokensByTheirSpelling) {
  const json golden = goldens();
  const Tokenizer gpt2 = Tokenizer::from_json(golden["tokenizers"]["gpt2"]["file"], "gpt2");
  EXPECT_EQ(gpt2.find("<|endoftext|>"), 0);
  EXPECT_EQ(gpt2.find("absent"), std::nullopt);
  EXPECT_EQ(gpt2.decode(std::vector{*gpt2.find("\u0120the")}), " the");
}

TEST(Tokenizer, MergesTheLowestRankFirstAndFromTheLeft) {
  const Tokenizer tokenizer = Tokenizer::parse(R"({"model": {"type": "BPE",
    "vocab": {"a": 0, "b": 1, "ab": 2, "aa": 3, "aab": 4},
    "merges": ["a a", "a b", "aa b"]}})",
                                               "x");
  EXPECT_THAT(tokenizer.encode("aab"), ElementsAre(4));
  EXPECT_THAT(tokenizer.encode("aaaab"), ElementsAre(3, 4));
  EXPECT_THAT(tokenizer.encode("aaab"), ElementsAre(3, 2));
  EXPECT_THAT(tokenizer.encode("ba"), ElementsAre(1, 0));
}

TEST(Tokenizer, SaysWhatCannotBeEncodedOrDecoded) {
  const Tokenizer tokenizer =
      Tokenizer::parse(R"({"model": {"vocab": {"a": 0}, "merges": []}})", "small.json");
  EXPECT_EQ(
      error_of([&] { tokenizer.encode("a\u00e9"); }),
      "small.json: no token for \"\u00e9\" and none for the unknown: expected a vocabulary of "
      "every byte, or one trained on such text");
  EXPECT_EQ(error_of([&] { tokenizer.encode("a\na\xff"); }),
            "the text to encode: not UTF-8: byte 0xff at offset 3, line 2: convert the text (iconv "
            "-t UTF-8)");
  EXPECT_EQ(error_of([&] {
              tokenizer.decode(std::vector<TokenId>{0, 1});
            }),
            "token 1: expected an id from 0 to 0");
}

// A tokenizer of one letter with `change` merged in.
std::string error_with(const char* change) {
  json file = json::parse(R"({"model": {"type": "BPE", "vocab": {"a": 0, "aa": 1},
    "merges": [["a", "a"]]}, "added_tokens": []})");
  file.merge_patch(json::parse(change));
  return error_of([&] { Tokenizer::parse(file.dump(), "t.json"); });
}

TEST(Tokenizer, RefusesWhatItDoesNotUnderstandByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"model": {"type": "WordPiece"}})", "a model of type \"WordPiece\": expected BPE"},
      {R"({"model": {"dropout": 0.1}})", "model.dropout is 0.1: expected null"},
      {R"({"model": {"end_of_word_suffix": "</w>"}})", "model.end_of_word_suffix is \"</w>\""},
      {R"({"model": {"vocab": {"b": 3}}})", "the id of the token \"b\" is 3: expected 0 to 2"},
      {R"({"model": {"vocab": {"b": 1}}})", "the tokens \"aa\" and \"b\" have the id 1"},
      {R"({"model": {"vocab": {"aa": null, "b": 1}}})", "the outcome of a merge is \"aa\""},
      {R"({"model": {"vocab": [1]}})", "model.vocab is [1]: expected an object"},
      {R"({"model": {"merges": ["a b"]}})", "merge 0 is of \"b\": expected tokens"},
      {R"({"model": {"merges": ["aa"]}})", "merge 0 is \"aa\": expected two tokens"},
      {R"({"model": {"unk_token": "?"}})", "the unknown token is \"?\""},
      {R"({"model": null})", "not a tokenizer.json"},
      {R"({"model": "x"})", "expected an object with \"vocab\", found \"x\""},
      {R"({"model": {"merges": [["a", 2]]}})", "a token of a merge is 2: expected a text"},
      {R"({"model": {"fuse_unk": 1}})", "fuse_unk is 1: expected true or false"},
      {R"({"added_tokens": 3})", "added_tokens is 3: expected a list"},
      {R"({"added_tokens": [{"id": 2, "content": "<x>", "lstrip": true}]})",
       "the added token \"<x>\" has lstrip: expected false"},
      {R"({"added_tokens": [{"id": 1, "content": "a"}]})",
       "the added token \"a\" has the id 1, but 0 in the vocabulary"},
      {R"({"normalizer": {"type": "NFC"}})", "the normalizer {\"type\":\"NFC\"} is not supported"},
      {R"({"normalizer": {"type": "Prepend", "prepend": "_"}})", "expected the same twice"},
      {R"({"pre_tokenizer": {"type": "Digits"}})", "the pre-tokenizer {\"type\":\"Digits\"}"},
      {R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Removed"}})",
       "is not supported: expected Split by regular expressions into isolated pieces"},
      {R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"}})",
       "the splitting pattern \"(a\" is not understood at byte 2: missing closing parenthesis"},
  };
  for (const auto& [change, message] : cases) {
    EXPECT_THAT(error_with(change), testing::AllOf(StartsWith("t.json: "), HasSubstr(message)))
        << change;
  }
  EXPECT_THAT(error_of([] { Tokenizer::parse("{", "t.json"); }), StartsWith("t.json: not valid"));
  EXPECT_THAT(error_of([] { Tokenizer::parse(std::string(99999, '['), "t.json"); }),
              StartsWith("t.json: JSON nested more than 16 deep"));
}

TEST(Tokenizer, OnlyTheStartOfATextGetsTheFirstSpace) {
  const Tokenizer tokenizer = Tokenizer::parse(
      R"({"model": {"vocab": {"▁": 0, "a": 1}, "merges": []},
          "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}})",
      "t.json");
  EXPECT_THAT(tokenizer.encode("a"), ElementsAre(0, 1));
  EXPECT_THAT(tokenizer.encode("a", /*starts_text=*/false), ElementsAre(1));
}

TEST(Tokenizer, APatternThatTakesTooLongIsAnError) {
  const Tokenizer tokenizer = Tokenizer::parse(R"({"model": {"vocab": {"a": 0}, "merges": []},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+[bc]"}, "behavior": "Isolated"}})",
                                               "slow.json");
  EXPECT_THAT(
      error_of([&] { tokenizer.encode(std::string(60, 'a')); }),
      StartsWith(
          "slow.json: the splitting pattern \"(a+)+[bc]\" fails on the text from byte 0 on"));
}

TEST(Utf8, AcceptsExactlyWhatTheStandardDoes) {
  const std::string valid[] = {"", "plain ascii text", "\u00e9\u07ff\u0800\uffff",
                               "\U00010000\U0010ffff", "12345678\u00e9"};
  for (const std::string& text : valid) EXPECT_EQ(valid_utf8_prefix(text), text.size()) << text;
  const std::string invalid[] = {"\x80",
                                 "\xc0\x80",
                                 "\xc1\xbf",
                                 "\xe0\x9f\xbf",
                                 "\xed\xa0\x80",
                                 "\xf0\x8f\xbf\xbf",
                                 "\xf4\x90\x80\x80",
                                 "\xf5\x80\x80\x80",
                                 "\xe2\x82",
                                 "\xff"};
  for (const std::string& text : invalid) EXPECT_EQ(valid_utf8_prefix("ab" + text), 2u) << text;
}

}  // namespace
}  // namespace concord::data

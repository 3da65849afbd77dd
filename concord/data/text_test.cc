#include "concord/data/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "concord/data/test_data.h"
#include "concord/data/test_files.h"

namespace concord::data {
namespace {

std::vector<TokenId> all_of(const TokenStream& tokens) {
  std::vector<TokenId> ids(tokens.size());
  tokens.read(0, ids);
  return ids;
}

TEST(Text, FilesFollowEachOtherPlainOrCompressed) {
  const ScratchFolder folder;
  const std::vector<std::filesystem::path> files = {folder.write("a.txt", "\xef\xbb\xbfone\n"),
                                                    folder.write("b.txt.gz", gzip("tw\u00f6"))};
  const TokenStream tokens = read_tokens(Tokenizer::bytes(), files);
  EXPECT_EQ(Tokenizer::bytes().decode(all_of(tokens)), "one\ntw\u00f6");
  EXPECT_EQ(tokens.bytes(), 2 * tokens.size());
}

TEST(Text, NamesTheFileThatIsNoText) {
  const ScratchFolder folder;
  const auto error = [&](const std::filesystem::path& file) {
    return error_of([&] { read_text(file); });
  };
  EXPECT_EQ(error(folder.path()), folder.path().string() +
                                      " is a folder: expected text files, plain or compressed by "
                                      "gzip");
  const std::string latin = folder.write("latin.txt", "one\nna\xefve").string();
  EXPECT_EQ(error(latin), latin +
                              ": not UTF-8: byte 0xef at offset 6, line 2: convert the text "
                              "(iconv -t UTF-8)");
  const std::string empty = folder.write("empty.txt", "").string();
  EXPECT_EQ(error(empty), empty + ": the file is empty: expected text");
  EXPECT_THAT(error(folder.path() / "absent.txt"), testing::HasSubstr("absent.txt"));
}

TEST(Text, StreamsKeepEveryIdOfNarrowAndWideVocabularies) {
  for (const int vocabulary : {1 << 16, 100'000}) {
    std::vector<TokenId> ids = {0, 1, vocabulary - 1, 7};
    TokenStream tokens(vocabulary);
    tokens.append(ids);
    tokens.append(ids);
    EXPECT_EQ(tokens.size(), 8u);
    std::vector<TokenId> middle(3);
    tokens.read(2, middle);
    EXPECT_THAT(middle, testing::ElementsAre(vocabulary - 1, 7, 0));
  }
}

TEST(Text, TheLastFractionBecomesTheValidationPart) {
  for (const int vocabulary : {1 << 16, 100'000}) {
    std::vector<TokenId> ids(101);
    std::iota(ids.begin(), ids.end(), 5);
    TokenStream tokens(vocabulary);
    tokens.append(ids);
    const TokenParts parts = split_tokens(std::move(tokens), 0.1);
    EXPECT_EQ(all_of(parts.training), std::vector(ids.begin(), ids.begin() + 91));
    EXPECT_EQ(all_of(parts.validation), std::vector(ids.begin() + 91, ids.end()));
  }
  TokenStream few(256);
  few.append(std::vector<TokenId>{1, 2, 3});
  EXPECT_EQ(error_of([&] { split_tokens(few, 0.1); }),
            "a fraction of 0.1 of 3 tokens for validation leaves 0 for it and 3 for training: "
            "expected some for each");
}

}  // namespace
}  // namespace concord::data

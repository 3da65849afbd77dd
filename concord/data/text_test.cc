#include "concord/data/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/data/test_data.h"
#include "concord/data/test_files.h"

namespace concord::data {
namespace {

TEST(Text, IsReadPlainOrCompressed) {
  const ScratchFolder folder;
  EXPECT_EQ(read_text(folder.write("a.txt", "\xef\xbb\xbfone\n")), "one\n");
  EXPECT_EQ(read_text(folder.write("b.txt.gz", gzip("tw\u00f6"))), "tw\u00f6");
}

TEST(Text, BecomesTokensOfTwoBytes) {
  const Tokenizer bytes = Tokenizer::bytes();
  const TokenStream tokens = to_tokens(bytes, "one\ntw\u00f6");
  std::vector<TokenId> ids(tokens.size());
  tokens.read(0, ids);
  EXPECT_EQ(bytes.decode(ids), "one\ntw\u00f6");
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
  const TextParts parts = split_text("0123456789abc", 0.25, "a.txt");
  EXPECT_EQ(parts.training, "0123456789");
  EXPECT_EQ(parts.validation, "abc");
  EXPECT_EQ(error_of([] { split_text("012", 0.1, "a.txt"); }),
            "a.txt: a fraction of 0.1 of its 3 bytes for validation leaves 0 for it and 3 for "
            "training: expected some for each");
  EXPECT_EQ(error_of([] { split_text("012", 1.0, "a.txt"); }),
            "a.txt: a fraction of 1 of its 3 bytes for validation leaves 0 for it and 3 for "
            "training: expected some for each");
}

TEST(Text, IsSplitBetweenCharacters) {
  const std::string text = "a\u20ac\u00f6";  // of 1, 3 and 2 bytes
  for (const double fraction : {0.34, 0.51, 0.67}) {
    const TextParts parts = split_text(text, fraction, "a.txt");
    EXPECT_EQ(parts.training, "a\u20ac") << fraction;
    EXPECT_EQ(parts.validation, "\u00f6") << fraction;
  }
}

}  // namespace
}  // namespace concord::data

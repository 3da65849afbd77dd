#include "concord/data/utf8.h"

#include <gtest/gtest.h>

namespace concord::data {
namespace {

TEST(CharacterStream, GivesWholeCharactersHoweverTheBytesCome) {
  const std::string text = "a\u00e9 \u20ac\U0001f600z";
  for (std::size_t part = 1; part <= text.size(); ++part) {
    CharacterStream stream;
    std::string out;
    for (std::size_t at = 0; at < text.size(); at += part) {
      const std::string whole = stream.add(text.substr(at, part));
      EXPECT_EQ(valid_utf8_prefix(whole), whole.size());
      out += whole;
    }
    EXPECT_EQ(out, text);
    EXPECT_EQ(stream.finish(), "");
  }
}

TEST(CharacterStream, ReplacesWhatIsNoCharacter) {
  CharacterStream stream;
  EXPECT_EQ(stream.add("\xe2\x82"), "");
  EXPECT_EQ(stream.add("x"), "\ufffd\ufffdx");
  EXPECT_EQ(stream.add("\x80\xff y"), "\ufffd\ufffd y");
  EXPECT_EQ(stream.add("\xf0\x9f"), "");
  EXPECT_EQ(stream.finish(), "\ufffd\ufffd");
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace concord::data

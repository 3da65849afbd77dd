#include "concord/base/text.h"

#include <gtest/gtest.h>

#include <array>

namespace concord {
namespace {

TEST(EditDistance, CountsInsertionDeletionReplacementAndSwap) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("batch", "batch"), 0u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("abc", ""), 3u);
  EXPECT_EQ(edit_distance("batch", "bacth"), 1u);
  EXPECT_EQ(edit_distance("batch", "btch"), 1u);
  EXPECT_EQ(edit_distance("batch", "bratch"), 1u);
  EXPECT_EQ(edit_distance("batch", "hatch"), 1u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  // No part is edited twice: "ca" -> "ac" -> "abc" would be 2.
  EXPECT_EQ(edit_distance("ca", "abc"), 3u);
}

TEST(Nearest, IsTheFirstOfTheClosestCandidates) {
  constexpr std::array<std::string_view, 3> names = {"resnet18", "resnet50", "vgg16"};
  EXPECT_EQ(nearest("resnet81", names), "resnet18");
  EXPECT_EQ(nearest("vgg61", names), "vgg16");
  EXPECT_EQ(nearest("resnet", names), "resnet18");
  EXPECT_EQ(nearest("anything", {}), "");
}

TEST(Nearest, HugeWordIsCheap) {
  constexpr std::array<std::string_view, 2> names = {"a", "b"};
  EXPECT_EQ(nearest(std::string(std::size_t{1} << 24, 'b'), names), "b");
}

TEST(Shortened, CutsAtAWholeCharacter) {
  EXPECT_EQ(shortened("abcdef", 6), "abcdef");
  EXPECT_EQ(shortened("abcdef", 5), "abcde...");
  EXPECT_EQ(shortened("abéé", 5), "abé...");
}

TEST(Quote, GivesOneLineWithEscapes) {
  EXPECT_EQ(quote("plain"), "\"plain\"");
  EXPECT_EQ(quote("a\"b\\c\nd\te"), R"("a\"b\\c\nd\te")");
  EXPECT_EQ(quote(std::string_view("\0\x1f\x7f", 3)), R"("\u0000\u001f\u007f")");
  EXPECT_EQ(quote("é"), "\"é\"");
}

}  // namespace
}  // namespace concord

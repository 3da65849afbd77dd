#include "concord/formats/json_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "concord/base/error.h"
#include "concord/formats/json.h"

namespace concord::formats {
namespace {

class JsonLinesTest : public testing::Test {
 protected:
  ~JsonLinesTest() override { std::filesystem::remove(path_); }

  std::filesystem::path path_ = std::filesystem::path(testing::TempDir()) /
                                (std::string("concord_json_lines_") +
                                 testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(JsonLinesTest, EachRecordIsALineInItsOwnOrderAndVisibleAtOnce) {
  JsonLines lines(path_, 0);
  lines.write({{"step", 1}, {"loss", 0.1}});
  lines.write(
      {{"step", 2}, {"loss", std::numeric_limits<double>::quiet_NaN()}, {"name", "a\n\xff"}});
  EXPECT_EQ(
      read_file(path_),
      "{\"step\":1,\"loss\":0.1}\n{\"step\":2,\"loss\":null,\"name\":\"a\\n\xef\xbf\xbd\"}\n");
}

TEST_F(JsonLinesTest, ResumingDropsLaterStepsAndATornLine) {
  OutputFile(path_).write(
      "{\"started\":true}\n{\"step\":1}\n{\"step\":2}\n{\"step\":3,\"test\":1}\nnot "
      "JSON\n3\n{\"step\":1,"
      "\"los");
  testing::internal::CaptureStderr();
  JsonLines(path_, 2).write({{"step", 3}});
  EXPECT_EQ(read_file(path_), "{\"started\":true}\n{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("dropped 3 line"));
}

TEST_F(JsonLinesTest, ALastLineThatLacksOnlyItsEndIsKept) {
  OutputFile(path_).write("{\"step\":1}\n{\"step\":2}");
  JsonLines(path_, 2).write({{"step", 3}});
  EXPECT_EQ(read_file(path_), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
}

TEST(JsonLines, APathThatCannotBeWrittenIsAnError) {
  EXPECT_THROW(JsonLines("/nonexistent/metrics.jsonl", 0), Error);
  EXPECT_THROW(JsonLines("/", 0), Error);
}

TEST(ParseJson, RefusesDuplicateKeysDepthAndGarbage) {
  EXPECT_EQ(parse_json("{\"a\": {\"b\": 1}, \"b\": [2, {\"a\": 3}]}", "x")["b"][1]["a"], 3);
  const std::string arrays(100000, '[');
  for (const std::string& text :
       {std::string("{\"a\": 1, \"a\": 1}"), std::string("[{\"\": {}, \"\": 2}]"), arrays,
        std::string(), std::string("nul"), std::string("1e999"), std::string("\"\xff\""),
        std::string("{} {}")}) {
    EXPECT_THROW(parse_json(text, "x"), Error) << text.substr(0, 20);
  }
}

}  // namespace
}  // namespace concord::formats

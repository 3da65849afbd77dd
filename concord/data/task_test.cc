#include "concord/data/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using testing::HasSubstr;

Task table_task() {
  CsvOptions options;
  options.separator = ';';
  options.categorical = {"colour"};
  return {.sample = {3},
          .target = TargetType::kClass,
          .outputs = 3,
          .class_names = {"9", "10", "x y"},
          .features = {{0.1f, 1e-20f, 3}, {1, 0.3f, 7}},
          .table = csv_schema("colour;size;kind\nred;1;9\nblue;2;10\nred;3;10\n", options, "t"),
          .mask = 2};
}

TEST(Task, SurvivesJson) {
  const Task task = table_task();
  const nlohmann::json text = nlohmann::json::parse(to_json(task).dump());
  const Task again = parse_task(text, "manifest");
  EXPECT_EQ(again.sample, task.sample);
  EXPECT_EQ(again.target, task.target);
  EXPECT_EQ(again.class_names, task.class_names);
  EXPECT_EQ(again.features.mean, task.features.mean);
  EXPECT_EQ(again.features.deviation, task.features.deviation);
  ASSERT_TRUE(again.table);
  EXPECT_EQ(again.table->separator, ';');
  ASSERT_EQ(again.table->columns.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(again.table->columns[i].name, task.table->columns[i].name);
    EXPECT_EQ(again.table->columns[i].role, task.table->columns[i].role);
    EXPECT_EQ(again.table->columns[i].categories, task.table->columns[i].categories);
  }
  EXPECT_EQ(to_json(again), to_json(task));
}

TEST(Task, RefusesWhatContradictsItself) {
  const auto error = [](const char* key, const nlohmann::json& value) {
    nlohmann::json json = to_json(table_task());
    json[nlohmann::json::json_pointer(key)] = value;
    return error_of([&] { parse_task(json, "manifest"); });
  };
  EXPECT_THAT(error("/sample", {3, -1}), HasSubstr("manifest: samples of [3, -1]"));
  EXPECT_THAT(error("/sample", {1 << 30, 1 << 30, 1 << 30}), HasSubstr("manifest: samples of"));
  EXPECT_THAT(error("/sample", "3"), HasSubstr("manifest: not the description of a task"));
  EXPECT_THAT(error("/sample_type", "words"), HasSubstr("\"words\""));
  EXPECT_THAT(error("/outputs", 0), HasSubstr("0 outputs"));
  EXPECT_THAT(error("/outputs", 4), HasSubstr("3 names for 4 classes"));
  EXPECT_THAT(error("/mask", 3), HasSubstr("a mask of id 3 among 3 tokens"));
  EXPECT_THAT(error("/target", "ranks"), HasSubstr("\"ranks\""));
  EXPECT_THAT(error("/features/mean", {1, 2}), HasSubstr("2 means and 3 deviations"));
  EXPECT_THAT(error("/table/separator", ""), HasSubstr("expected one byte"));
  EXPECT_THAT(error("/table/columns/0/role", "index"), HasSubstr("\"index\""));
  EXPECT_THAT(error("/table/columns/0/categories", {"a", "a"}), HasSubstr("twice"));
}

}  // namespace
}  // namespace concord::data

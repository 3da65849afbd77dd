#include "concord/data/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/data/test_files.h"

namespace concord::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::vector<std::string>> rows_of(std::string_view text, char separator = ',') {
  CsvReader reader(text, separator, "x.csv");
  std::vector<std::vector<std::string>> rows;
  for (std::vector<std::string> fields; reader.next(fields);) rows.push_back(fields);
  return rows;
}

std::unique_ptr<Dataset> parse(std::string_view text, const CsvOptions& options) {
  return parse_csv(text, csv_schema(text, options, "x.csv"), "x.csv");
}

std::vector<float> sample_of(const Dataset& dataset, std::int64_t index) {
  std::vector<float> sample(static_cast<std::size_t>(dataset.sample_shape().elements()));
  dataset.read(index, sample);
  return sample;
}

TEST(CsvReader, SplitsRowsAndQuotedFields) {
  EXPECT_THAT(
      rows_of("a,b\r\n\n\"x,\"\"y\"\"\nz\",\n,1"),
      ElementsAre(ElementsAre("a", "b"), ElementsAre("x,\"y\"\nz", ""), ElementsAre("", "1")));
  EXPECT_THAT(rows_of("\xef\xbb\xbf"
                      "a;b,c\n",
                      ';'),
              ElementsAre(ElementsAre("a", "b,c")));
  EXPECT_THAT(rows_of(""), ElementsAre());
}

TEST(CsvReader, RefusesBrokenQuotesNamingTheLine) {
  EXPECT_THAT(error_of([] { rows_of("a\n\"b\nc"); }), HasSubstr("x.csv:2: a quoted field"));
  EXPECT_THAT(error_of([] { rows_of("a\nb,\"c\"d"); }),
              HasSubstr("x.csv:2: text after the closing quote of field 2"));
}

TEST(Csv, NumericAndCategoricalColumnsBecomeFeatures) {
  CsvOptions options;
  options.targets = {"kind"};
  options.categorical = {"colour"};
  const auto dataset =
      parse("length,kind,colour,width\n 1.5,cat,red,+2\n-3e1,ant,blue,4\n1,cat,red,0", options);
  EXPECT_EQ(dataset->sample_shape(), (Shape{4}));
  EXPECT_THAT(dataset->class_names(), ElementsAre("ant", "cat"));
  EXPECT_THAT(sample_of(*dataset, 0), ElementsAre(1.5f, 0, 1, 2));
  EXPECT_THAT(sample_of(*dataset, 1), ElementsAre(-30, 1, 0, 4));
  EXPECT_EQ(dataset->label(0), 1);
  EXPECT_EQ(dataset->label(1), 0);
}

TEST(Csv, IntegerClassesAreNumberedInNumericOrder) {
  CsvOptions options;
  options.header = false;
  const auto dataset = parse("0,10\n0,9\n0,-1\n", options);
  EXPECT_THAT(dataset->class_names(), ElementsAre("-1", "9", "10"));
  EXPECT_EQ(dataset->label(0), 2);
}

TEST(Csv, RegressionTargetsAreNumbers) {
  CsvOptions options;
  options.target_type = TargetType::kValues;
  options.targets = {"price", "0"};
  const auto dataset = parse("a,b,price\n1,2,3\n4,5,6\n", options);
  EXPECT_EQ(dataset->target_width(), 2);
  EXPECT_EQ(dataset->sample_shape(), (Shape{1}));
  std::vector<float> target(2);
  dataset->read_target(1, target);
  EXPECT_THAT(target, ElementsAre(4, 6));
}

TEST(Csv, TestFileIsUnderstoodAsTheTrainingFile) {
  const ScratchFolder folder;
  CsvOptions options;
  options.categorical = {"0"};
  const auto train = folder.write("train.csv", "colour,kind\nred,a\nblue,b\ngreen,c\n");
  const auto test = folder.write("test.csv", "colour,kind\ngreen,c\n");
  const auto dataset = open_csv(test, train, options);
  EXPECT_THAT(sample_of(*dataset, 0), ElementsAre(0, 1, 0));
  EXPECT_EQ(dataset->label(0), 2);
  EXPECT_EQ(dataset->classes(), 3);

  const auto unknown = folder.write("unknown.csv", "colour,kind\nred,a\nblack,a\n");
  EXPECT_THAT(error_of([&] { open_csv(unknown, train, options); }),
              HasSubstr("unknown.csv:3: column 'colour': \"black\" is not among the 3 values"));
  const auto renamed = folder.write("renamed.csv", "colour,sort\nred,a\n");
  EXPECT_THAT(error_of([&] { open_csv(renamed, train, options); }), HasSubstr("'kind'"));
}

TEST(Csv, ErrorsNameFileLineAndColumn) {
  const auto error = [](std::string_view text) { return error_of([&] { parse(text, {}); }); };
  EXPECT_THAT(error("a,b\n\n1,x\ntwo,x\n"),
              HasSubstr("x.csv:4: column 'a': \"two\" is not a finite number"));
  EXPECT_THAT(error("a,b\nnan,x\n"), HasSubstr("not a finite number"));
  EXPECT_THAT(error("a,b\n1e39,x\n"), HasSubstr("not a finite number"));
  EXPECT_THAT(error("a,b\n,x\n"), HasSubstr("\"\" is not a finite number"));
  EXPECT_THAT(error("a,b\n1,x\n1\n"), HasSubstr("x.csv:3: 1 fields: expected 2"));
  EXPECT_THAT(error("a,b\n"), HasSubstr("no rows"));
  EXPECT_THAT(error(""), HasSubstr("empty"));
  EXPECT_THAT(error("a\nx\n"), HasSubstr("no features"));
}

TEST(Csv, RefusesColumnsThatAreNotThereOrHaveTwoRoles) {
  CsvOptions options;
  options.targets = {"c"};
  EXPECT_THAT(error_of([&] { parse("a,b\n1,2\n", options); }),
              HasSubstr("no column 'c': there are 2 columns: a, b"));
  options.targets = {"2"};
  EXPECT_THAT(error_of([&] { parse("a,b\n1,2\n", options); }), HasSubstr("no column '2'"));
  options.targets = {"a"};
  options.categorical = {"a"};
  EXPECT_THAT(error_of([&] { parse("a,b\n1,2\n", options); }), HasSubstr("both as target"));
}

TEST(Csv, RefusesCategoriesWithoutEnd) {
  std::string text = "name,kind\n";
  for (int i = 0; i < 2000; ++i) text += std::to_string(i) + ",x\n";
  CsvOptions options;
  options.categorical = {"name"};
  EXPECT_THAT(error_of([&] { parse(text, options); }), HasSubstr("more than 1024 values"));
}

}  // namespace
}  // namespace concord::data

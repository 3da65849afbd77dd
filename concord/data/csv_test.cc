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

// Three rows with a category and a class, and their schema.
CsvSchema colour_schema() {
  CsvOptions options;
  options.categorical = {"0"};
  return csv_schema("colour,size,kind\nred,1,a\nblue,2,b\ngreen,3,c\n", options, "train.csv");
}

TEST(Csv, TestFileIsUnderstoodAsTheTrainingFile) {
  const CsvSchema schema = colour_schema();
  const auto dataset = parse_csv("colour,size,kind\ngreen,7,c\n", schema, "test.csv");
  EXPECT_THAT(sample_of(*dataset, 0), ElementsAre(0, 1, 0, 7));
  EXPECT_EQ(dataset->label(0), 2);
  EXPECT_EQ(dataset->classes(), 3);

  EXPECT_THAT(
      error_of([&] { parse_csv("colour,size,kind\nred,1,a\nblack,1,a\n", schema, "x.csv"); }),
      HasSubstr("x.csv:3: column 'colour': \"black\" is not among the 3 values"));
  EXPECT_THAT(error_of([&] { parse_csv("colour,size,sort\nred,1,a\n", schema, "x.csv"); }),
              HasSubstr("'kind'"));
}

TEST(Csv, FeaturesToPredictFromNeedNoTargets) {
  const CsvSchema schema = colour_schema();
  const std::vector<float> expected = {1, 0, 0, 5, 0, 0, 1, 6};
  EXPECT_EQ(parse_csv_features("colour,size\nblue,5\nred,6\n", schema, "x.csv"), expected);
  EXPECT_EQ(parse_csv_features("colour,size,kind\nblue,5,?\nred,6,\n", schema, "x.csv"), expected);
  const auto error = [&](std::string_view text) {
    return error_of([&] { parse_csv_features(text, schema, "x.csv"); });
  };
  EXPECT_THAT(error("colour\nblue\n"), HasSubstr("expected the 2 features of the training file"));
  EXPECT_THAT(error("colour,weight\nblue,5\n"), HasSubstr("expected 'size'"));
  EXPECT_THAT(error("colour,size\nblue,heavy\n"), HasSubstr("not a finite number"));
  EXPECT_THAT(error("colour,size\n"), HasSubstr("no rows"));
  EXPECT_THAT(error(""), HasSubstr("empty"));
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

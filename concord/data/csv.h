// CSV tables: one sample per row; feature columns that are numeric or categorical, and target
// columns. Syntax: RFC 4180 (quoted fields, "" for a quote within, line breaks within quotes), any
// one-byte separator, LF or CRLF line ends; blank lines are skipped.
//
// What a column means (its categories, the classes) is taken from the training file alone and
// applied to every file: a CsvSchema. A categorical column becomes one 0/1 feature per category, in
// sorted order; a numeric column one feature. Columns keep the order of the file. Errors: Error
// naming file, line and column for malformed rows, values that are no finite numbers, and
// categories or classes that the training file does not have.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "concord/data/dataset.h"

namespace concord::data {

// A column is named by its name in the header, or by its number from 0; negative numbers count from
// the last column, which is -1.
struct CsvOptions {
  bool header = true;  // the first row holds the columns' names
  char separator = ',';
  TargetType target_type = TargetType::kClass;
  std::vector<std::string> targets = {"-1"};  // exactly one for classes
  std::vector<std::string> categorical;       // feature columns to read as categories
};

// Splits text into rows of fields.
class CsvReader {
 public:
  // `bytes` must outlive the reader; `source` names them in errors.
  CsvReader(std::string_view bytes, char separator, std::string_view source);
  // Reads the next row; false at the end.
  bool next(std::vector<std::string>& fields);
  // The line on which the last row starts, from 1.
  std::int64_t line() const { return row_line_; }

 private:
  std::string quoted_field();

  std::string_view rest_;
  char separator_;
  std::string source_;
  std::int64_t line_ = 1;
  std::int64_t row_line_ = 1;
};

struct CsvColumn {
  enum class Role { kNumeric, kCategorical, kClass, kValue };
  std::string name;
  Role role = Role::kNumeric;
  // kCategorical and kClass: the number of each category. Classes that are all integers are in
  // numeric order, others in the order of their bytes.
  std::map<std::string, int, std::less<>> categories;
};

struct CsvSchema {
  std::vector<CsvColumn> columns;
  bool header = true;
  char separator = ',';
};

CsvSchema csv_schema(std::string_view bytes, const CsvOptions& options, std::string_view source);

// The samples in `bytes`, which must have the columns of `schema`.
std::unique_ptr<Dataset> parse_csv(std::string_view bytes, const CsvSchema& schema,
                                   std::string_view source);

// The features alone, row after row, of a table of samples to predict from: its target columns may
// be left out, and where they are there, their cells may hold anything.
std::vector<float> parse_csv_features(std::string_view bytes, const CsvSchema& schema,
                                      std::string_view source);

}  // namespace concord::data

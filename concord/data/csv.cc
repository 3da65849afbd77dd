#include "concord/data/csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "concord/base/error.h"

namespace concord::data {
namespace {

// A column with more distinct values than this is no category: its one-hot form would not fit.
constexpr std::size_t kMaxCategories = 1024;

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
  text = trimmed(text);
  if (text.starts_with('+')) text.remove_prefix(1);
  Number value{};
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Where a cell stands, for messages.
struct Cell {
  std::string_view source;
  std::int64_t line;
  const CsvColumn& column;
  std::string_view text;
};

std::string describe(const Cell& cell) {
  return fmt::format("{}:{}: column '{}': {:?}", cell.source, cell.line, cell.column.name,
                     cell.text.substr(0, 60));
}

float number_in(const Cell& cell) {
  const std::optional<double> value = parse_number<double>(cell.text);
  if (!value || !std::isfinite(static_cast<float>(*value))) {
    fail("{} is not a finite number{}", describe(cell),
         cell.column.role == CsvColumn::Role::kNumeric
             ? "; if the column holds categories, list it in data.categorical"
             : "; if the column names classes, set model.loss = \"cross_entropy\"");
  }
  return static_cast<float>(*value);
}

int category_in(const Cell& cell) {
  const auto place = cell.column.categories.find(cell.text);
  if (place == cell.column.categories.end()) {
    fail("{} is not among the {} values this column has in the training file{}", describe(cell),
         cell.column.categories.size(),
         cell.column.role == CsvColumn::Role::kClass
             ? "; if it holds numbers to be predicted, set model.loss = \"mse\", \"l1\" or "
               "\"huber\""
             : "");
  }
  return place->second;
}

std::size_t find_column(const std::string& key, const std::vector<CsvColumn>& columns,
                        std::string_view source) {
  const auto named = std::ranges::find(columns, key, &CsvColumn::name);
  if (named != columns.end()) return static_cast<std::size_t>(named - columns.begin());
  const auto count = static_cast<std::int64_t>(columns.size());
  if (const std::optional<std::int64_t> number = parse_number<std::int64_t>(key)) {
    if (*number >= -count && *number < count) {
      return static_cast<std::size_t>(*number < 0 ? *number + count : *number);
    }
  }
  std::string names;
  for (std::size_t i = 0; i < columns.size() && i < 20; ++i) {
    names += (i == 0 ? "" : ", ") + columns[i].name;
  }
  fail("{}: no column '{}': there are {} columns: {}{}", source, key, count, names,
       columns.size() > 20 ? ", ..." : "");
}

// Columns with names and roles; their categories are still to be collected.
std::vector<CsvColumn> named_columns(const std::vector<std::string>& first_row,
                                     const CsvOptions& options, std::string_view source) {
  std::vector<CsvColumn> columns(first_row.size());
  for (std::size_t i = 0; i < columns.size(); ++i) {
    columns[i].name = options.header ? first_row[i] : std::to_string(i);
  }
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const auto same = std::ranges::find(columns, columns[i].name, &CsvColumn::name);
    if (static_cast<std::size_t>(same - columns.begin()) < i) {
      fail("{}: two columns are named '{}': expected different names", source, columns[i].name);
    }
  }
  const bool classes = options.target_type == TargetType::kClass;
  if (options.targets.empty() || (classes && options.targets.size() != 1)) {
    fail("{}: {} target columns given: expected {}", source, options.targets.size(),
         classes ? "one, with the class, for model.loss = \"cross_entropy\"" : "at least one");
  }
  for (const std::string& key : options.targets) {
    columns[find_column(key, columns, source)].role =
        classes ? CsvColumn::Role::kClass : CsvColumn::Role::kValue;
  }
  for (const std::string& key : options.categorical) {
    CsvColumn& column = columns[find_column(key, columns, source)];
    if (column.role != CsvColumn::Role::kNumeric && column.role != CsvColumn::Role::kCategorical) {
      fail("{}: column '{}' is given both as target and as categorical feature", source,
           column.name);
    }
    column.role = CsvColumn::Role::kCategorical;
  }
  return columns;
}

// Numbers the collected categories: in numeric order where all are integers.
void number_categories(CsvColumn& column) {
  std::vector<std::string> names;
  bool integers = true;
  for (const auto& [name, number] : column.categories) {
    names.push_back(name);
    integers = integers && parse_number<std::int64_t>(name).has_value();
  }
  if (integers) {
    std::ranges::stable_sort(
        names, {}, [](const std::string& name) { return *parse_number<std::int64_t>(name); });
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    column.categories[names[i]] = static_cast<int>(i);
  }
}

bool is_categorical(const CsvColumn& column) {
  return column.role == CsvColumn::Role::kCategorical || column.role == CsvColumn::Role::kClass;
}

void check_width(const std::vector<std::string>& fields, std::size_t columns,
                 std::string_view source, std::int64_t line) {
  if (fields.size() != columns) {
    fail("{}:{}: {} fields: expected {}", source, line, fields.size(), columns);
  }
}

// The rows of a table as features and targets.
struct Table {
  std::vector<float> features;
  std::vector<std::int64_t> labels;
  std::vector<float> values;
};

void append_cell(const Cell& cell, Table& table) {
  switch (cell.column.role) {
    case CsvColumn::Role::kNumeric:
      table.features.push_back(number_in(cell));
      break;
    case CsvColumn::Role::kValue:
      table.values.push_back(number_in(cell));
      break;
    case CsvColumn::Role::kClass:
      table.labels.push_back(category_in(cell));
      break;
    case CsvColumn::Role::kCategorical: {
      const auto hot = static_cast<std::size_t>(category_in(cell));
      const std::size_t begin = table.features.size();
      table.features.resize(begin + cell.column.categories.size(), 0.0f);
      table.features[begin + hot] = 1.0f;
      break;
    }
  }
}

Targets targets_of(Table& table, const CsvSchema& schema, std::string_view source) {
  const auto column = std::ranges::find(schema.columns, CsvColumn::Role::kClass, &CsvColumn::role);
  if (column == schema.columns.end()) {
    Targets targets;
    targets.type = TargetType::kValues;
    targets.width = static_cast<int>(
        std::ranges::count(schema.columns, CsvColumn::Role::kValue, &CsvColumn::role));
    targets.values = std::move(table.values);
    return targets;
  }
  const auto& classes = column->categories;
  std::vector<std::string> names(classes.size());
  for (const auto& [name, number] : classes) names[static_cast<std::size_t>(number)] = name;
  return class_targets(table.labels, static_cast<int>(classes.size()), source, std::move(names));
}

bool is_target(const CsvColumn& column) {
  return column.role == CsvColumn::Role::kClass || column.role == CsvColumn::Role::kValue;
}

// What the columns of a file are, in its order; null: not looked at.
using FileColumns = std::vector<const CsvColumn*>;

// A file that must have every column of the schema.
FileColumns all_columns(CsvReader& reader, const CsvSchema& schema, std::string_view source) {
  FileColumns columns;
  for (const CsvColumn& column : schema.columns) columns.push_back(&column);
  std::vector<std::string> names;
  if (!schema.header || !reader.next(names)) return columns;
  check_width(names, columns.size(), source, reader.line());
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == columns[i]->name) continue;
    fail("{}:{}: column {} is named '{}': the training file names it '{}'", source, reader.line(),
         i, names[i], columns[i]->name);
  }
  return columns;
}

// A file that must have every feature column, in order, and may have target columns.
FileColumns feature_columns(CsvReader& reader, const CsvSchema& schema, std::size_t width,
                            std::string_view source) {
  FileColumns all, features;
  std::string expected;
  for (const CsvColumn& column : schema.columns) {
    all.push_back(is_target(column) ? nullptr : &column);
    if (is_target(column)) continue;
    features.push_back(&column);
    if (features.size() <= 20) expected += (expected.empty() ? "" : ", ") + column.name;
  }
  if (features.size() > 20) expected += ", ...";
  if (width != all.size() && width != features.size()) {
    fail(
        "{}: {} columns: expected the {} features of the training file ({}), with or without its "
        "targets",
        source, width, features.size(), expected);
  }
  const FileColumns& columns = width == all.size() ? all : features;
  std::vector<std::string> names;
  if (!schema.header || !reader.next(names)) return columns;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (columns[i] == nullptr || names[i] == columns[i]->name) continue;
    fail("{}:{}: column {} is named '{}': expected '{}', as in the training file", source,
         reader.line(), i, names[i], columns[i]->name);
  }
  return columns;
}

std::size_t width_of_first_row(std::string_view bytes, char separator, std::string_view source) {
  std::vector<std::string> fields;
  if (!CsvReader(bytes, separator, source).next(fields)) fail("{}: the file is empty", source);
  return fields.size();
}

// The rows that are left in `reader`; at least one.
Table read_table(CsvReader& reader, const FileColumns& columns, std::string_view source,
                 std::int64_t& rows) {
  Table table;
  std::vector<std::string> fields;
  for (rows = 0; reader.next(fields); ++rows) {
    check_width(fields, columns.size(), source, reader.line());
    for (std::size_t i = 0; i < fields.size(); ++i) {
      if (columns[i] == nullptr) continue;
      append_cell({source, reader.line(), *columns[i], fields[i]}, table);
    }
  }
  if (rows == 0) fail("{}: there are no rows of data", source);
  return table;
}

}  // namespace

CsvReader::CsvReader(std::string_view bytes, char separator, std::string_view source)
    : rest_(bytes), separator_(separator), source_(source) {
  if (separator == '"' || separator == '\n' || separator == '\r') {
    fail("{}: a quote or line break cannot separate fields", source);
  }
  if (rest_.starts_with("\xef\xbb\xbf")) rest_.remove_prefix(3);  // the byte-order mark of UTF-8
}

bool CsvReader::next(std::vector<std::string>& fields) {
  fields.clear();
  while (!rest_.empty() && (rest_.front() == '\n' || rest_.starts_with("\r\n"))) {
    rest_.remove_prefix(rest_.front() == '\n' ? 1 : 2);
    ++line_;
  }
  row_line_ = line_;
  if (rest_.empty()) return false;
  while (true) {
    if (rest_.starts_with('"')) {
      fields.push_back(quoted_field());
    } else {
      std::size_t end = 0;
      while (end < rest_.size() && rest_[end] != separator_ && rest_[end] != '\n') ++end;
      std::string_view field = rest_.substr(0, end);
      rest_.remove_prefix(end);
      if (field.ends_with('\r') && (rest_.empty() || rest_.front() == '\n')) field.remove_suffix(1);
      fields.emplace_back(field);
    }
    if (rest_.starts_with("\r\n")) rest_.remove_prefix(1);
    if (rest_.empty()) return true;
    const char after = rest_.front();
    if (after != separator_ && after != '\n') {
      fail("{}:{}: text after the closing quote of field {}", source_, line_, fields.size());
    }
    rest_.remove_prefix(1);
    if (after == '\n') {
      ++line_;
      return true;
    }
  }
}

// Reads from the opening quote to just after the closing one.
std::string CsvReader::quoted_field() {
  const std::int64_t start = line_;
  std::string field;
  rest_.remove_prefix(1);
  while (true) {
    const std::size_t quote = rest_.find('"');
    if (quote == rest_.npos) fail("{}:{}: a quoted field that does not end", source_, start);
    const std::string_view piece = rest_.substr(0, quote);
    line_ += std::ranges::count(piece, '\n');
    field += piece;
    rest_.remove_prefix(quote + 1);
    if (!rest_.starts_with('"')) return field;
    field += '"';
    rest_.remove_prefix(1);
  }
}

CsvSchema csv_schema(std::string_view bytes, const CsvOptions& options, std::string_view source) {
  CsvReader reader(bytes, options.separator, source);
  std::vector<std::string> fields;
  if (!reader.next(fields)) fail("{}: the file is empty", source);
  CsvSchema schema{named_columns(fields, options, source), options.header, options.separator};
  bool more = !options.header || reader.next(fields);
  for (; more; more = reader.next(fields)) {
    check_width(fields, schema.columns.size(), source, reader.line());
    for (std::size_t i = 0; i < fields.size(); ++i) {
      CsvColumn& column = schema.columns[i];
      if (!is_categorical(column)) continue;
      column.categories.try_emplace(fields[i], 0);
      if (column.role == CsvColumn::Role::kCategorical &&
          column.categories.size() > kMaxCategories) {
        fail("{}:{}: the categorical column '{}' has more than {} values", source, reader.line(),
             column.name, kMaxCategories);
      }
    }
  }
  for (CsvColumn& column : schema.columns) number_categories(column);
  return schema;
}

std::unique_ptr<Dataset> parse_csv(std::string_view bytes, const CsvSchema& schema,
                                   std::string_view source) {
  CsvReader reader(bytes, schema.separator, source);
  std::int64_t rows = 0;
  Table table = read_table(reader, all_columns(reader, schema, source), source, rows);
  if (table.features.empty()) fail("{}: every column is a target: no features are left", source);
  const auto width = static_cast<std::int64_t>(table.features.size()) / rows;
  Targets targets = targets_of(table, schema, source);
  return float_dataset({width}, std::move(table.features), std::move(targets));
}

std::vector<float> parse_csv_features(std::string_view bytes, const CsvSchema& schema,
                                      std::string_view source) {
  const std::size_t width = width_of_first_row(bytes, schema.separator, source);
  CsvReader reader(bytes, schema.separator, source);
  std::int64_t rows = 0;
  return read_table(reader, feature_columns(reader, schema, width, source), source, rows).features;
}

}  // namespace concord::data

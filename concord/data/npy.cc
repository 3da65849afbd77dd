#include "concord/data/npy.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>
#include <string>

#include "concord/base/error.h"
#include "concord/base/file.h"

namespace concord::data {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";

struct NpyTypeName {
  std::string_view name;
  NpyType type;
  std::size_t bytes;
};
constexpr NpyTypeName kTypes[] = {{"<f4", NpyType::kF4, 4},
                                  {"<f8", NpyType::kF8, 8},
                                  {"|u1", NpyType::kU1, 1},
                                  {"<i4", NpyType::kI4, 4},
                                  {"<i8", NpyType::kI8, 8}};

// The header is a Python dictionary literal with the keys descr, fortran_order and shape.
struct HeaderParser {
  std::string_view text;
  std::string_view source;

  void skip_space() {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\n')) text.remove_prefix(1);
  }
  bool take(std::string_view token) {
    skip_space();
    if (!text.starts_with(token)) return false;
    text.remove_prefix(token.size());
    return true;
  }
  void expect(std::string_view token) {
    if (!take(token)) {
      fail("{}: malformed .npy header: expected {} before {:?}", source, token, text.substr(0, 20));
    }
  }
  std::string_view quoted() {
    expect("'");
    const std::size_t end = text.find('\'');
    if (end == text.npos) fail("{}: malformed .npy header: unterminated string", source);
    const std::string_view result = text.substr(0, end);
    text.remove_prefix(end + 1);
    return result;
  }
  std::int64_t integer() {
    skip_space();
    std::int64_t value = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (status != std::errc() || value < 0) {
      fail("{}: malformed .npy header: expected an extent before {:?}", source, text.substr(0, 20));
    }
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return value;
  }
  Shape shape() {
    std::vector<std::int64_t> dims;
    expect("(");
    while (!take(")")) {
      if (!dims.empty()) expect(",");
      if (!dims.empty() && take(")")) break;
      dims.push_back(integer());
    }
    return Shape(std::move(dims));
  }
};

struct NpyHeader {
  std::optional<std::string_view> type;
  std::optional<bool> fortran_order;
  std::optional<Shape> shape;
};

NpyHeader parse_header(std::string_view text, std::string_view source) {
  HeaderParser parser{text, source};
  NpyHeader header;
  parser.expect("{");
  while (!parser.take("}")) {
    const std::string_view key = parser.quoted();
    parser.expect(":");
    if (key == "descr") {
      header.type = parser.quoted();
    } else if (key == "shape") {
      header.shape = parser.shape();
    } else if (key == "fortran_order") {
      header.fortran_order = parser.take("True");
      if (!*header.fortran_order) parser.expect("False");
    } else {
      fail("{}: unknown key {:?} in the .npy header", source, key);
    }
    if (!parser.take(",")) {
      parser.expect("}");
      break;
    }
  }
  if (!header.type || !header.fortran_order || !header.shape) {
    fail("{}: the .npy header lacks descr, fortran_order or shape", source);
  }
  return header;
}

// The header's text and, after it, the data; versions 2 and 3 have a longer length field.
std::pair<std::string_view, std::string_view> split_header(std::string_view bytes,
                                                           std::string_view source) {
  if (!bytes.starts_with(kMagic) || bytes.size() < 12) {
    fail("{}: not a .npy file: it does not start with the mark \\x93NUMPY", source);
  }
  const auto byte = [&](std::size_t i) { return std::size_t{static_cast<std::uint8_t>(bytes[i])}; };
  const std::size_t version = byte(6);
  if (version < 1 || version > 3) fail("{}: .npy version {}: expected 1 to 3", source, version);
  std::size_t start = 10;
  std::size_t length = byte(8) | byte(9) << 8;
  if (version > 1) {
    start = 12;
    length |= byte(10) << 16 | byte(11) << 24;
  }
  if (length > bytes.size() - start) fail("{}: the .npy header ends early", source);
  return {bytes.substr(start, length), bytes.substr(start + length)};
}

template <typename Stored, typename Result>
void convert(std::string_view data, std::vector<Result>& result) {
  for (std::size_t i = 0; i < data.size(); i += sizeof(Stored)) {
    Stored value;
    std::memcpy(&value, data.data() + i, sizeof(Stored));
    result.push_back(static_cast<Result>(value));
  }
}

template <typename Result>
std::vector<Result> converted(const NpyArray& array) {
  std::vector<Result> result;
  result.reserve(static_cast<std::size_t>(array.shape.elements()));
  switch (array.type) {
    case NpyType::kF4:
      convert<float>(array.data, result);
      break;
    case NpyType::kF8:
      convert<double>(array.data, result);
      break;
    case NpyType::kU1:
      convert<std::uint8_t>(array.data, result);
      break;
    case NpyType::kI4:
      convert<std::int32_t>(array.data, result);
      break;
    case NpyType::kI8:
      convert<std::int64_t>(array.data, result);
      break;
  }
  return result;
}

std::unique_ptr<Dataset> with_targets(const std::filesystem::path& features, Targets targets,
                                      const std::string& target_source, NpyBytes bytes_are) {
  const std::string source = features.string();
  const std::string bytes = read_file(features);
  const NpyArray array = parse_npy(bytes, source);
  const Shape sample_shape = npy_sample_shape(array.shape, source);
  if (array.shape[0] != targets.size()) {
    fail("{} has {} samples but {} has {} targets: expected one for each sample", source,
         array.shape[0], target_source, targets.size());
  }
  const bool pixels = bytes_are == NpyBytes::kPixels && array.shape.rank() >= 3;
  if (array.type == NpyType::kU1 && pixels) {
    return byte_dataset(sample_shape, converted<std::uint8_t>(array), std::move(targets));
  }
  return float_dataset(sample_shape, npy_floats(array, source), std::move(targets));
}

}  // namespace

NpyArray parse_npy(std::string_view bytes, std::string_view source) {
  const auto [text, data] = split_header(bytes, source);
  const NpyHeader header = parse_header(text, source);
  if (*header.fortran_order) {
    fail("{}: the array is in Fortran order: save numpy.ascontiguousarray(array)", source);
  }
  const NpyTypeName* type = nullptr;
  for (const NpyTypeName& candidate : kTypes) {
    if (candidate.name == *header.type) type = &candidate;
  }
  if (type == nullptr) {
    fail("{}: element type {:?}: expected <f4, <f8, |u1, <i4 or <i8", source, *header.type);
  }
  const Shape& shape = *header.shape;
  if (shape.rank() == 0) fail("{}: a single number: expected an array of samples", source);
  const std::size_t available = data.size() / type->bytes;
  std::size_t elements = 1;
  for (const std::int64_t dim : shape) {
    if (dim == 0) fail("{}: the array {} is empty", source, to_string(shape));
    if (static_cast<std::size_t>(dim) > available / elements) {
      fail("{}: truncated data: {} of {} needs more than the {} bytes present", source,
           to_string(shape), *header.type, data.size());
    }
    elements *= static_cast<std::size_t>(dim);
  }
  if (data.size() != elements * type->bytes) {
    fail("{}: {} bytes of data: expected {} for {} of {}", source, data.size(),
         elements * type->bytes, to_string(shape), *header.type);
  }
  return {type->type, shape, data};
}

Shape npy_sample_shape(const Shape& shape, std::string_view source) {
  switch (shape.rank()) {
    case 1:
      return {1};
    case 2:
      return {shape[1]};
    case 3:
      return {1, shape[1], shape[2]};
    case 4:
      return {shape[1], shape[2], shape[3]};
    default:
      fail("{}: expected features [N], [N, F], [N, H, W] or [N, C, H, W], found {}", source,
           to_string(shape));
  }
}

std::vector<float> npy_floats(const NpyArray& array, std::string_view source) {
  std::vector<float> values = converted<float>(array);
  const std::size_t row = values.size() / static_cast<std::size_t>(array.shape[0]);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      fail("{}: sample {} has a value that is not finite in single precision (element {})", source,
           i / row, i % row);
    }
  }
  return values;
}

std::vector<std::int64_t> npy_integers(const NpyArray& array, std::string_view source) {
  if (array.type == NpyType::kF4 || array.type == NpyType::kF8) {
    fail(
        "{}: class labels must be integers (u1, i4 or i8), found floating-point numbers; if they "
        "are to be predicted, set model.loss = \"mse\", \"l1\", \"huber\" or \"bce\"",
        source);
  }
  return converted<std::int64_t>(array);
}

std::vector<std::int64_t> read_npy_labels(const std::filesystem::path& path) {
  const std::string bytes = read_file(path);
  const NpyArray array = parse_npy(bytes, path.string());
  if (array.shape.rank() != 1) {
    fail("{}: expected labels [N], found {}", path.string(), to_string(array.shape));
  }
  return npy_integers(array, path.string());
}

std::unique_ptr<Dataset> open_npy_classes(const std::filesystem::path& features,
                                          const std::filesystem::path& labels, int classes,
                                          NpyBytes bytes) {
  return with_targets(features, class_targets(read_npy_labels(labels), classes, labels.string()),
                      labels.string(), bytes);
}

std::unique_ptr<Dataset> open_npy_values(const std::filesystem::path& features,
                                         const std::filesystem::path& values, NpyBytes bytes) {
  const std::string source = values.string();
  const std::string text = read_file(values);
  const NpyArray array = parse_npy(text, source);
  if (array.shape.rank() > 2) {
    fail("{}: expected targets [N] or [N, width], found {}", source, to_string(array.shape));
  }
  Targets targets;
  targets.type = TargetType::kValues;
  targets.width = array.shape.rank() == 1 ? 1 : static_cast<int>(array.shape[1]);
  targets.values = npy_floats(array, source);
  return with_targets(features, std::move(targets), source, bytes);
}

}  // namespace concord::data

#include "concord/formats/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <tuple>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/formats/json.h"

namespace concord::formats {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little endian");

constexpr std::size_t kPrefix = 8;               // bytes of the header's length
constexpr std::size_t kMaxHeader = 100'000'000;  // as the public reader has it
constexpr std::string_view kMetadata = "__metadata__";

std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF64:
      return "F64";
    case DType::kBF16:
      return "BF16";
    case DType::kI32:
      return "I32";
    case DType::kI64:
      return "I64";
    case DType::kU8:
      return "U8";
  }
  return "?";
}

std::optional<DType> dtype_named(std::string_view name) {
  for (const DType dtype :
       {DType::kF32, DType::kF64, DType::kBF16, DType::kI32, DType::kI64, DType::kU8}) {
    if (name_of(dtype) == name) return dtype;
  }
  return std::nullopt;
}

using NamedType = std::pair<std::string_view, TensorType>;

// The order in which a file holds them.
bool precedes(const NamedType& a, const NamedType& b) {
  return std::tuple(size_of(b.second.dtype), a.first) <
         std::tuple(size_of(a.second.dtype), b.first);
}

// The prefix and the header, padded so that the data begins at a multiple of 8.
std::string render_header(std::span<const NamedType> tensors, const Metadata& metadata,
                          const std::string& path) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[std::string(kMetadata)] = metadata;
  std::uint64_t offset = 0;
  for (const auto& [name, type] : tensors) {
    if (header.contains(name) || name == kMetadata) {
      fail("cannot write {}: tensor name '{}' is taken", path, name);
    }
    header[std::string(name)] = {{"dtype", name_of(type.dtype)},
                                 {"shape", type.shape.dims()},
                                 {"data_offsets", {offset, offset + type.bytes()}}};
    offset += type.bytes();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception& error) {
    fail("cannot write {}: a name or metadata is not UTF-8: {}", path, error.what());
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxHeader) {
    fail("cannot write {}: its header takes {} bytes, the format allows {}", path, text.size(),
         kMaxHeader);
  }
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), kPrefix) + text;
}

// The elements of a shape, or nullopt where a product of its dims that are not 0 does not fit:
// strides are such products, whatever the number of elements.
std::optional<std::int64_t> checked_elements(const std::vector<std::int64_t>& dims) {
  std::int64_t product = 1;
  bool empty = false;
  for (const std::int64_t dim : dims) {
    empty = empty || dim == 0;
    if (__builtin_mul_overflow(product, std::max<std::int64_t>(dim, 1), &product)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : product;
}

std::int64_t to_size(const nlohmann::json& value, const std::string& what) {
  if (!value.is_number_unsigned() ||
      value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
    fail("{}: {} where a size was expected", what, value.dump());
  }
  return value.get<std::int64_t>();
}

const nlohmann::json& field(const nlohmann::json& description, const char* key,
                            nlohmann::json::value_t kind, const std::string& what) {
  const auto found = description.find(key);
  if (found == description.end() || found->type() != kind) {
    fail("{}: no {}, or of the wrong kind", what, key);
  }
  return *found;
}

std::string read_header(const InputFile& file) {
  if (file.bytes() < kPrefix) {
    fail("{}: {} bytes, too short for a safetensors file", file.name(), file.bytes());
  }
  std::uint64_t length = 0;
  file.read(0, std::as_writable_bytes(std::span(&length, 1)));
  const std::uint64_t available = file.bytes() - kPrefix;
  if (length > std::min<std::uint64_t>(available, kMaxHeader)) {
    fail("{}: its header should have {} bytes, but {} follow and at most {} are allowed",
         file.name(), length, available, kMaxHeader);
  }
  std::string header(static_cast<std::size_t>(length), '\0');
  file.read(kPrefix, std::as_writable_bytes(std::span(header)));
  if (!header.starts_with('{')) fail("{}: the header does not begin with '{{'", file.name());
  return header;
}

// A tensor's entry in the header; offsets count from the beginning of the data.
struct Description {
  std::string dtype;
  std::vector<std::int64_t> dims;
  std::size_t begin = 0;
  std::size_t end = 0;
};

Description parse_description(const nlohmann::json& value, std::size_t data_bytes,
                              const std::string& what) {
  using Kind = nlohmann::json::value_t;
  Description result;
  result.dtype = field(value, "dtype", Kind::string, what).get<std::string>();
  for (const auto& dim : field(value, "shape", Kind::array, what)) {
    result.dims.push_back(to_size(dim, what));
  }
  const auto& offsets = field(value, "data_offsets", Kind::array, what);
  if (offsets.size() != 2) fail("{}: data_offsets are not two numbers", what);
  result.begin = static_cast<std::size_t>(to_size(offsets[0], what));
  result.end = static_cast<std::size_t>(to_size(offsets[1], what));
  if (result.begin > result.end || result.end > data_bytes) {
    fail("{}: data_offsets [{}, {}] do not lie within the {} bytes of data", what, result.begin,
         result.end, data_bytes);
  }

  const auto elements = checked_elements(result.dims);
  if (!elements) fail("{}: the shape's size does not fit 64 bits", what);
  if (const auto dtype = dtype_named(result.dtype)) {
    const std::size_t bytes = result.end - result.begin;
    if (bytes % size_of(*dtype) != 0 ||
        bytes / size_of(*dtype) != static_cast<std::size_t>(*elements)) {
      fail("{}: {} bytes do not hold {} of shape {}", what, bytes, result.dtype,
           to_string(Shape(result.dims)));
    }
  }
  return result;
}

Metadata parse_metadata(const nlohmann::json& value, const std::string& source) {
  if (!value.is_object()) fail("{}: {} is not a JSON object", source, kMetadata);
  Metadata metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) fail("{}: {} holds a value that is not a string", source, kMetadata);
    metadata.emplace(key, text.get<std::string>());
  }
  return metadata;
}

}  // namespace

FileDigest write_safetensors(const std::filesystem::path& path,
                             std::span<const NamedTensor> tensors, const Metadata& metadata) {
  std::vector<std::pair<NamedType, std::span<const std::byte>>> order;
  for (const auto& [name, type, bytes] : tensors) {
    CONCORD_CHECK(bytes.size() == type.bytes(), "{}", name);
    order.push_back({{name, type}, bytes});
  }
  std::ranges::sort(order, precedes, [](const auto& tensor) { return tensor.first; });
  std::vector<NamedType> types;
  for (const auto& [type, bytes] : order) types.push_back(type);

  const std::string header = render_header(types, metadata, path.string());
  OutputFile file(path);
  Checksum sum;
  FileDigest digest{.bytes = header.size(), .xxh3_128 = ""};
  file.write(header);
  sum.update(header);
  for (const auto& [type, bytes] : order) {
    file.write(bytes);
    sum.update(bytes);
    digest.bytes += bytes.size();
  }
  file.sync();
  digest.xxh3_128 = sum.hex();
  return digest;
}

SharedSafetensors::SharedSafetensors(std::filesystem::path path,
                                     const std::map<std::string, TensorType, std::less<>>& tensors,
                                     const Metadata& metadata)
    : path_(std::move(path)) {
  std::vector<NamedType> order(tensors.begin(), tensors.end());
  std::ranges::sort(order, precedes);
  header_ = render_header(order, metadata, path_.string());
  bytes_ = header_.size();
  for (const auto& [name, type] : order) {
    offsets_.emplace(name, bytes_);
    bytes_ += type.bytes();
  }
}

void SharedSafetensors::create() const {
  OutputFile file(path_);
  file.write(header_);
  file.resize(bytes_);
  file.sync();
}

void SharedSafetensors::write(std::span<const NamedTensor> tensors) const {
  OutputFile file(path_, OutputFile::Mode::kExisting);
  for (const auto& [name, type, bytes] : tensors) {
    const auto offset = offsets_.find(name);
    CONCORD_CHECK(offset != offsets_.end() && bytes.size() == type.bytes(), "{}", name);
    file.write_at(offset->second, bytes);
  }
  file.sync();
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  return SafetensorsFile(InputFile(path));
}

SafetensorsFile SafetensorsFile::parse(std::string contents, std::string source) {
  return SafetensorsFile(InputFile(std::move(contents), std::move(source)));
}

SafetensorsFile::SafetensorsFile(InputFile file) : file_(std::move(file)) {
  const std::string text = read_header(file_);
  const std::uint64_t data = kPrefix + text.size();
  const nlohmann::json header = parse_json(text, file_.name());
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadata) {
      metadata_ = parse_metadata(value, file_.name());
      continue;
    }
    Description description = parse_description(value, file_.bytes() - data,
                                                fmt::format("{}: tensor '{}'", file_.name(), name));
    const auto dtype = dtype_named(description.dtype);
    entries_[name] = {.dtype = std::move(description.dtype),
                      .type = {dtype.value_or(DType{}), Shape(std::move(description.dims))},
                      .known = dtype.has_value(),
                      .begin = data + description.begin,
                      .end = data + description.end};
  }
  check_coverage(data);
}

// Every byte of the data, which begins at `data`, must belong to exactly one tensor.
void SafetensorsFile::check_coverage(std::uint64_t data) const {
  std::vector<std::tuple<std::uint64_t, std::uint64_t, std::string_view>> ranges;
  for (const auto& [name, entry] : entries_) ranges.emplace_back(entry.begin, entry.end, name);
  std::ranges::sort(ranges);
  std::uint64_t position = data;
  for (const auto& [begin, end, name] : ranges) {
    if (begin != position) {
      fail("{}: tensor '{}' begins at byte {} of the data, expected {} (a hole or an overlap)",
           file_.name(), name, begin - data, position - data);
    }
    position = end;
  }
  if (position != file_.bytes()) {
    fail("{}: {} bytes at the end belong to no tensor", file_.name(), file_.bytes() - position);
  }
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

const SafetensorsFile::Entry& SafetensorsFile::find(std::string_view name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail("{} holds no tensor '{}'", file_.name(), name);
  if (!found->second.known) {
    fail("{}: tensor '{}' has element type {}; Concord reads F32, F64, BF16, I32, I64 and U8",
         file_.name(), name, found->second.dtype);
  }
  return found->second;
}

const TensorType& SafetensorsFile::type(std::string_view name) const { return find(name).type; }

std::vector<std::byte> SafetensorsFile::bytes(std::string_view name) const {
  const Entry& entry = find(name);
  std::vector<std::byte> bytes(static_cast<std::size_t>(entry.end - entry.begin));
  file_.read(entry.begin, bytes);
  return bytes;
}

}  // namespace concord::formats

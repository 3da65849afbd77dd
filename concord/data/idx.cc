#include "concord/data/idx.h"

#include <string>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/data/gzip.h"

namespace concord::data {
namespace {

constexpr std::size_t kMaxHeader = 4 + 4 * 255;
constexpr std::uint64_t kMaxElements = std::uint64_t{1} << 40;

struct IdxHeader {
  Shape shape;
  std::size_t bytes = 0;     // length of the header itself
  std::size_t elements = 0;  // and so of the data after it
};

IdxHeader parse_header(std::string_view bytes, std::string_view source) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(bytes[i]); };
  if (bytes.size() < 4 || byte(0) != 0 || byte(1) != 0) {
    fail("{}: not an IDX file: it does not start with two zero bytes and a type", source);
  }
  if (byte(2) != 0x08) {
    fail("{}: IDX element type {:#04x}: expected 0x08 (unsigned bytes)", source, byte(2));
  }
  const std::size_t rank = byte(3);
  IdxHeader header;
  header.bytes = 4 + 4 * rank;
  if (bytes.size() < header.bytes) {
    fail("{}: the IDX header ends early: {} bytes, expected {}", source, bytes.size(),
         header.bytes);
  }
  std::vector<std::int64_t> dims;
  std::uint64_t elements = 1;
  for (std::size_t i = 4; i < header.bytes; i += 4) {
    std::uint64_t dim = 0;
    for (std::size_t k = 0; k < 4; ++k) dim = dim << 8 | byte(i + k);
    if (dim == 0) fail("{}: dim {} of the IDX array is 0", source, dims.size());
    if (dim > kMaxElements / elements) fail("{}: the IDX array is impossibly large", source);
    elements *= dim;
    dims.push_back(static_cast<std::int64_t>(dim));
  }
  header.shape = Shape(std::move(dims));
  header.elements = elements;
  return header;
}

std::string display(const std::filesystem::path& path) { return path.string(); }

}  // namespace

IdxArray parse_idx(std::string_view bytes, std::string_view source) {
  std::string decompressed;
  IdxHeader header;
  if (is_gzip(bytes)) {
    // The header says how much to expect, so a small file cannot claim endless memory.
    header = parse_header(gunzip(bytes, kMaxHeader, source), source);
    decompressed = gunzip(bytes, header.bytes + header.elements + 1, source);
    bytes = decompressed;
  } else {
    header = parse_header(bytes, source);
  }
  bytes.remove_prefix(header.bytes);
  if (bytes.size() != header.elements) {
    fail("{}: {} data: the header says {}, which is {} bytes, and there are {}{}", source,
         bytes.size() < header.elements ? "truncated" : "too much", to_string(header.shape),
         header.elements, bytes.size() > header.elements ? "at least " : "", bytes.size());
  }
  return {std::move(header.shape), {bytes.begin(), bytes.end()}};
}

std::vector<std::int64_t> read_idx_labels(const std::filesystem::path& path) {
  const IdxArray array = parse_idx(read_file(path), display(path));
  if (array.shape.rank() != 1) {
    fail("{}: expected labels [N], found {}", display(path), to_string(array.shape));
  }
  return {array.values.begin(), array.values.end()};
}

std::unique_ptr<Dataset> open_idx(const std::filesystem::path& images,
                                  const std::filesystem::path& labels, int classes) {
  IdxArray array = parse_idx(read_file(images), display(images));
  const Shape& shape = array.shape;
  if (shape.rank() != 3 && shape.rank() != 4) {
    fail("{}: expected images [N, H, W] or [N, C, H, W], found {}", display(images),
         to_string(shape));
  }
  const std::vector<std::int64_t> values = read_idx_labels(labels);
  if (static_cast<std::int64_t>(values.size()) != shape[0]) {
    fail("{} has {} images but {} has {} labels: expected one label for each image",
         display(images), shape[0], display(labels), values.size());
  }
  const Shape sample =
      shape.rank() == 3 ? Shape{1, shape[1], shape[2]} : Shape{shape[1], shape[2], shape[3]};
  return byte_dataset(sample, std::move(array.values),
                      class_targets(values, classes, display(labels)));
}

}  // namespace concord::data

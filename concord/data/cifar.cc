#include "concord/data/cifar.h"

#include <sstream>
#include <string>

#include "concord/base/error.h"
#include "concord/base/file.h"

namespace concord::data {
namespace {

constexpr std::size_t kPixels = 3 * 32 * 32;

int classes_of(CifarKind kind) { return kind == CifarKind::k10 ? 10 : 100; }

std::vector<std::string> read_lines(const std::filesystem::path& path) {
  std::istringstream text(read_file(path, 1 << 20));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

}  // namespace

void parse_cifar(std::string_view bytes, CifarKind kind, std::string_view source,
                 CifarRecords& records) {
  const std::size_t label_bytes = kind == CifarKind::k10 ? 1 : 2;
  const std::size_t record = label_bytes + kPixels;
  if (bytes.empty() || bytes.size() % record != 0) {
    fail(
        "{}: {} bytes: expected a multiple of {}, the size of a CIFAR-{} record; the file is "
        "truncated or of another kind",
        source, bytes.size(), record, classes_of(kind));
  }
  for (std::size_t i = 0; i < bytes.size(); i += record) {
    const int label = static_cast<std::uint8_t>(bytes[i + label_bytes - 1]);
    if (label >= classes_of(kind)) {
      fail("{}: the label of sample {} is {}: expected 0 to {}", source, i / record, label,
           classes_of(kind) - 1);
    }
    records.labels.push_back(label);
    const auto* pixels = reinterpret_cast<const std::uint8_t*>(bytes.data()) + i + label_bytes;
    records.pixels.insert(records.pixels.end(), pixels, pixels + kPixels);
  }
}

std::unique_ptr<Dataset> open_cifar(const std::vector<std::filesystem::path>& files, CifarKind kind,
                                    const std::filesystem::path& names) {
  CONCORD_CHECK(!files.empty());
  CifarRecords records;
  for (const auto& file : files) parse_cifar(read_file(file), kind, file.string(), records);
  std::vector<std::string> class_names;
  if (!names.empty()) class_names = read_lines(names);
  const std::string source = (names.empty() ? files.front() : names).string();
  Targets targets = class_targets(records.labels, classes_of(kind), source, std::move(class_names));
  return byte_dataset({3, 32, 32}, std::move(records.pixels), std::move(targets));
}

}  // namespace concord::data

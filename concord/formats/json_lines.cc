#include "concord/formats/json_lines.h"

#include <string>
#include <string_view>
#include <utility>

#include "concord/base/error.h"
#include "concord/base/log.h"
#include "concord/formats/json.h"

namespace concord::formats {
namespace {

enum class Line { kKeep, kDrop, kTorn };

Line judge(std::string_view line, std::int64_t keep_up_to_step) {
  try {
    const nlohmann::json record = parse_json(line, "record");
    if (!record.is_object()) return Line::kTorn;
    const auto step = record.find("step");
    const bool later = step != record.end() && step->is_number() &&
                       step->get<double>() > static_cast<double>(keep_up_to_step);
    return later ? Line::kDrop : Line::kKeep;
  } catch (const Error&) {
    return Line::kTorn;
  }
}

std::filesystem::path without_later_records(std::filesystem::path path,
                                            std::int64_t keep_up_to_step) {
  std::error_code ignored;  // a path that cannot be looked up fails when it is opened
  if (!std::filesystem::exists(path, ignored)) return path;
  const std::string text = read_file(path);
  std::string kept;
  int torn = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t length = rest.find('\n');
    const std::string_view line = rest.substr(0, length);
    rest.remove_prefix(length == rest.npos ? rest.size() : length + 1);
    const Line verdict = judge(line, keep_up_to_step);
    if (verdict == Line::kKeep) kept.append(line).append("\n");
    if (verdict == Line::kTorn) ++torn;
  }
  if (torn > 0) log("{}: dropped {} line(s) that hold no complete record", path.string(), torn);
  if (kept != text) write_file_atomically(path, kept);
  return path;
}

}  // namespace

JsonLines::JsonLines(std::filesystem::path path, std::int64_t keep_up_to_step)
    : file_(without_later_records(std::move(path), keep_up_to_step), OutputFile::Mode::kAppend) {}

void JsonLines::write(const nlohmann::ordered_json& record) {
  file_.write(record.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace concord::formats

// An append-only file of JSON records, one a line: the metrics of a run. A line is written by one
// call, so a reader beside the run sees whole records. Thread safety: one thread at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "concord/base/file.h"

namespace concord::formats {

class JsonLines {
 public:
  // Opens `path` to append, creating it if needed. A run that resumes after step S passes S:
  // records whose "step" is greater are dropped, for they will be written again; so is a line that
  // is no record (torn when the run before ended), with a line in the log. Throws Error when the
  // file cannot be read or written.
  JsonLines(std::filesystem::path path, std::int64_t keep_up_to_step);

  // Appends `record`; a NaN or infinity becomes null, for JSON has none. Throws Error when it
  // cannot.
  void write(const nlohmann::ordered_json& record);

 private:
  OutputFile file_;
};

}  // namespace concord::formats

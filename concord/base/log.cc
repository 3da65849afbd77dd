#include "concord/base/log.h"

#include <cstdio>
#include <string>

namespace concord {

void log_line(std::string_view message) {
  const std::string line = fmt::format("concord: {}\n", message);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace concord

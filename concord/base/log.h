// One-line messages to standard error. Standard output belongs to the command's result.
// Thread safety: each message is written by one call; messages do not interleave.
#pragma once

#include <fmt/core.h>

#include <string_view>
#include <utility>

namespace concord {

// Writes "concord: <message>\n" to standard error.
void log_line(std::string_view message);

template <typename... Args>
void log(fmt::format_string<Args...> format, Args&&... args) {
  log_line(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace concord

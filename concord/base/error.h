// Errors of two kinds. A user's mistake throws concord::Error, whose message says what was given,
// what was expected and what to do. A broken invariant of Concord itself is a CONCORD_CHECK, which
// prints the condition and its place and aborts: continuing would train on corrupt state.
#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace concord {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws Error with a formatted message.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

// Prints `message` with the place of the broken invariant and aborts. Used by CONCORD_CHECK.
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& message);

}  // namespace concord

// CONCORD_CHECK(condition) or CONCORD_CHECK(condition, "format {}", args...): an invariant.
#define CONCORD_CHECK(condition, ...)                                                         \
  do {                                                                                        \
    if (!(condition)) [[unlikely]]                                                            \
      ::concord::check_failed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__)); \
  } while (false)

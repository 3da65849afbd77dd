#include "concord/base/error.h"

#include <cstdio>
#include <cstdlib>

namespace concord {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  fmt::print(stderr, "concord: internal error at {}:{}: {} does not hold{}{}\n", file, line,
             condition, message.empty() ? "" : ": ", message);
  std::abort();
}

}  // namespace concord

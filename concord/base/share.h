// Share: one of several equally large parts of a run of numbers, cut at cache lines.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

namespace concord {

struct Share {
  int index = 0;
  int count = 1;

  bool is_all() const { return count == 1; }
  // Which of `elements` numbers of 4 bytes are in it: [first, second).
  std::pair<std::int64_t, std::int64_t> of(std::int64_t elements) const {
    constexpr std::int64_t kLine = 16;
    const std::int64_t lines = (elements + kLine - 1) / kLine;
    const auto begin = [&](std::int64_t i) {
      return std::min(elements, lines * i / count * kLine);
    };
    return {begin(index), begin(index + 1)};
  }
};

}  // namespace concord

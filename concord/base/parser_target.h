// For tests and fuzzers alone: parsers under attack.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/error.h"
#include "concord/base/philox.h"

namespace concord {

// It must return, or throw Error, for any bytes.
struct ParserTarget {
  std::string_view name;
  std::vector<std::string> seeds;  // well-formed inputs to start from
  void (*parse)(std::string_view bytes);
};

// One to four random edits: a byte changed, a range repeated, a range removed, the end cut off.
inline std::string mutated(std::string bytes, const RandomStream& stream) {
  const std::uint32_t edits = 1 + uniform_below(stream.bits(0), 4);
  for (std::uint32_t edit = 1; edit <= edits && !bytes.empty(); ++edit) {
    const PhiloxBlock draw = stream.block(edit);
    // Headers come first, so places near the start are chosen more often.
    const auto size = static_cast<std::uint32_t>(bytes.size());
    const std::uint32_t reach = draw[3] % 2 == 0 ? std::min(size, 64u) : size;
    const std::size_t place = uniform_below(draw[0], reach);
    const std::size_t length = 1 + uniform_below(draw[1], 16);
    switch (draw[2] % 5) {
      case 0:
        bytes[place] = static_cast<char>(draw[1]);
        break;
      case 1:
        bytes[place] = draw[1] % 2 == 0 ? '\0' : '\xff';
        break;
      case 2:
        bytes.insert(place, bytes.substr(place, length));
        break;
      case 3:
        bytes.erase(place, length);
        break;
      case 4:
        bytes.resize(place);
        break;
    }
  }
  return bytes;
}

// What the parser says of those of so many mutants of each seed that it refuses.
inline std::vector<std::string> refusals(const ParserTarget& target, int mutants) {
  std::vector<std::string> said;
  for (const std::string& seed : target.seeds) {
    for (int i = 0; i < mutants; ++i) {
      try {
        target.parse(mutated(seed, {7, static_cast<std::uint32_t>(i), 0}));
      } catch (const Error& error) {
        said.emplace_back(error.what());
      }
    }
  }
  return said;
}

}  // namespace concord

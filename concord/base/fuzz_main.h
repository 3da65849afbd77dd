// The entry points of libFuzzer for one parser. An empty corpus is enough: short inputs are
// replaced by well-formed seeds before they are mutated.
#pragma once

#include <algorithm>
#include <cstring>

#include "concord/base/error.h"
#include "concord/base/parser_target.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace concord {

inline int fuzz_one(const ParserTarget& target, const std::uint8_t* data, std::size_t size) {
  try {
    target.parse({reinterpret_cast<const char*>(data), size});
  } catch (const Error&) {
  }
  return 0;
}

inline std::size_t mutate_one(const ParserTarget& target, std::uint8_t* data, std::size_t size,
                              std::size_t max_size, unsigned seed) {
  if (size <= 1) {
    const std::string& bytes = target.seeds[seed % target.seeds.size()];
    size = std::min(bytes.size(), max_size);
    std::memcpy(data, bytes.data(), size);
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

}  // namespace concord

// `make_target` is a function that returns a ParserTarget, with its namespace.
#define CONCORD_FUZZ(make_target)                                                       \
  static const concord::ParserTarget fuzz_target = make_target();                       \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {   \
    return concord::fuzz_one(fuzz_target, data, size);                                  \
  }                                                                                     \
  extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,  \
                                                 std::size_t max_size, unsigned seed) { \
    return concord::mutate_one(fuzz_target, data, size, max_size, seed);                \
  }

// Adds up many arrays in a given order, tile by tile: intermediate sums stay in the first cache,
// and each array travels through memory once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "concord/comm/leaf_tree.h"

namespace concord::comm {

class TileSum {
 public:
  // For so many sources, at least one. Allocates only where there are more than ever before.
  void plan(std::span<const Join> joins, std::size_t sources);
  // sums[..][i] become the sum of sources[..][i] for i in [begin, end); sums may be sources.
  void run(std::span<const float* const> sources, std::span<float* const> sums, std::int64_t begin,
           std::int64_t end) const;

 private:
  struct Operand {
    bool is_scratch;
    std::size_t index;  // of a source, or of a tile between
  };
  // a + b, or (a + b) + (c + d).
  struct Addition {
    Operand a, b, c, d;
    bool is_of_four;
    std::size_t scratch;  // where the sum goes, unless it is the last
  };
  // Makes one addition of the last three where they add up four.
  void fuse_last();

  std::vector<Addition> additions_;
  std::vector<Operand> at_;  // where the sum at each source is by now
  std::vector<std::size_t> free_;
};

}  // namespace concord::comm

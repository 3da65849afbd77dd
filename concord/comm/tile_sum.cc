#include "concord/comm/tile_sum.h"

#include <algorithm>
#include <array>

#include "concord/base/error.h"
#include "concord/base/parallel.h"

namespace concord::comm {
namespace {

constexpr std::int64_t kTile = 1024;      // floats
constexpr std::size_t kMostScratch = 24;  // more than the levels of any tree

}  // namespace

void TileSum::plan(std::span<const Join> joins, std::size_t sources) {
  additions_.clear();
  free_.clear();
  for (std::size_t i = kMostScratch; i-- > 0;) free_.push_back(i);
  at_.clear();
  for (std::size_t i = 0; i < sources; ++i) at_.push_back({false, i});
  for (const Join& join : joins) {
    const Operand a = at_[join.into], b = at_[join.from];
    if (b.is_scratch) free_.push_back(b.index);
    Operand& sum = at_[join.into];
    if (!a.is_scratch) {
      CONCORD_CHECK(!free_.empty(), "{} sources", sources);
      sum = {true, free_.back()};
      free_.pop_back();
    }
    additions_.push_back({a, b, sum.index});
  }
}

void TileSum::run(std::span<const float* const> sources, float* sum, std::int64_t begin,
                  std::int64_t end) const {
  const std::int64_t tiles = (end - begin + kTile - 1) / kTile;
  parallel_for(tiles, 1, [&](std::int64_t first, std::int64_t last) {
    std::array<std::array<float, kTile>, kMostScratch> scratch;
    for (std::int64_t tile = first; tile < last; ++tile) {
      const std::int64_t start = begin + tile * kTile;
      const std::int64_t count = std::min(kTile, end - start);
      const auto data = [&](const Operand& operand) {
        return operand.is_scratch ? scratch[operand.index].data() : sources[operand.index] + start;
      };
      if (additions_.empty()) std::copy_n(sources[0] + start, count, sum + start);
      for (const Addition& addition : additions_) {
        const bool is_last = &addition == &additions_.back();
        const float *a = data(addition.a), *b = data(addition.b);
        float* const to = is_last ? sum + start : scratch[addition.scratch].data();
        for (std::int64_t i = 0; i < count; ++i) to[i] = a[i] + b[i];
      }
    }
  });
}

}  // namespace concord::comm

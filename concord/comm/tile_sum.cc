#include "concord/comm/tile_sum.h"

#include <algorithm>
#include <array>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/comm/tile_sum.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/error.h"
#include "concord/base/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace concord::comm::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Each of sums[..][begin + i] becomes a[i] + b[i].
void add(const float* a, const float* b, std::span<float* const> sums, std::int64_t begin,
         std::int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto sum = hn::Add(hn::LoadU(d, a + i), hn::LoadU(d, b + i));
    for (float* const to : sums) hn::StoreU(sum, d, to + begin + i);
  }
  for (; i < count; ++i) {
    const float sum = a[i] + b[i];
    for (float* const to : sums) to[begin + i] = sum;
  }
}

}  // namespace concord::comm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::comm {

HWY_EXPORT(add);

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

void TileSum::run(std::span<const float* const> sources, std::span<float* const> sums,
                  std::int64_t begin, std::int64_t end) const {
  if (additions_.empty()) {
    for (float* const sum : sums) {
      if (sum != sources[0]) std::copy(sources[0] + begin, sources[0] + end, sum + begin);
    }
    return;
  }
  const std::int64_t tiles = (end - begin + kTile - 1) / kTile;
  parallel_for(tiles, 1, [&](std::int64_t first, std::int64_t last) {
    alignas(64) std::array<std::array<float, kTile>, kMostScratch> scratch;
    for (std::int64_t tile = first; tile < last; ++tile) {
      const std::int64_t start = begin + tile * kTile, count = std::min(kTile, end - start);
      const auto data = [&](const Operand& operand) {
        return operand.is_scratch ? scratch[operand.index].data() : sources[operand.index] + start;
      };
      const auto add_up = [&](const Addition& addition, std::span<float* const> to,
                              std::int64_t at) {
        HWY_DYNAMIC_DISPATCH(add)(data(addition.a), data(addition.b), to, at, count);
      };
      for (const Addition& addition : std::span(additions_).first(additions_.size() - 1)) {
        add_up(addition, {{scratch[addition.scratch].data()}}, 0);
      }
      add_up(additions_.back(), sums, start);
    }
  });
}

}  // namespace concord::comm
#endif  // HWY_ONCE

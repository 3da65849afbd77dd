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

// sums[..][begin + i] = a[i] + b[i].
void add_two(const float* a, const float* b, std::span<float* const> sums, std::int64_t begin,
             std::int64_t count) {
  const hn::ScalableTag<float> tag;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(tag));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto sum = hn::Add(hn::LoadU(tag, a + i), hn::LoadU(tag, b + i));
    for (float* const to : sums) hn::StoreU(sum, tag, to + begin + i);
  }
  for (; i < count; ++i) {
    const float sum = a[i] + b[i];
    for (float* const to : sums) to[begin + i] = sum;
  }
}

// sums[..][begin + i] = (a[i] + b[i]) + (c[i] + d[i]).
void add_four(const float* a, const float* b, const float* c, const float* d,
              std::span<float* const> sums, std::int64_t begin, std::int64_t count) {
  const hn::ScalableTag<float> tag;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(tag));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto left = hn::Add(hn::LoadU(tag, a + i), hn::LoadU(tag, b + i));
    const auto right = hn::Add(hn::LoadU(tag, c + i), hn::LoadU(tag, d + i));
    for (float* const to : sums) hn::StoreU(hn::Add(left, right), tag, to + begin + i);
  }
  for (; i < count; ++i) {
    const float sum = (a[i] + b[i]) + (c[i] + d[i]);
    for (float* const to : sums) to[begin + i] = sum;
  }
}

}  // namespace concord::comm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::comm {

HWY_EXPORT(add_two);
HWY_EXPORT(add_four);

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
    additions_.push_back({.a = a, .b = b, .is_of_four = false, .scratch = sum.index});
    fuse_last();
  }
}

void TileSum::fuse_last() {
  const std::size_t count = additions_.size();
  if (count < 3) return;
  Addition& left = additions_[count - 3];
  const Addition &right = additions_[count - 2], &last = additions_[count - 1];
  const auto adds = [](const Operand& operand, const Addition& half) {
    return operand.is_scratch && operand.index == half.scratch && !half.is_of_four;
  };
  if (!adds(last.a, left) || !adds(last.b, right)) return;
  left = {left.a, left.b, right.a, right.b, /*is_of_four=*/true, last.scratch};
  additions_.resize(count - 2);
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
      const auto add_up = [&](const Addition& of, std::span<float* const> to, std::int64_t at) {
        if (of.is_of_four) {
          HWY_DYNAMIC_DISPATCH(add_four)
          (data(of.a), data(of.b), data(of.c), data(of.d), to, at, count);
        } else {
          HWY_DYNAMIC_DISPATCH(add_two)(data(of.a), data(of.b), to, at, count);
        }
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

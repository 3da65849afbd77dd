// Philox (philox.h) with one block in each lane, on top of Highway: included by .cc files after
// hwy/highway.h. (The guard toggles because foreach_target.h includes the file repeatedly.)
#if defined(CONCORD_BASE_PHILOX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CONCORD_BASE_PHILOX_INL_H_
#undef CONCORD_BASE_PHILOX_INL_H_
#else
#define CONCORD_BASE_PHILOX_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "concord/base/philox.h"

HWY_BEFORE_NAMESPACE();
namespace concord::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using DrawTag = hn::ScalableTag<std::uint32_t>;
using Draws = hn::Vec<DrawTag>;

// draws[i] = random.bits(4 * block + i) for i in [0, 4 * blocks). `blocks` is a multiple of Lanes.
#if HWY_TARGET == HWY_SCALAR
inline void draw(const RandomStream& random, std::uint64_t block, std::size_t blocks,
                 std::uint32_t* draws) {
  for (std::size_t i = 0; i < blocks; ++i) {
    const PhiloxBlock words = random.block(block + i);
    std::copy(words.begin(), words.end(), draws + 4 * i);
  }
}
#else
// The upper and lower words of a * b.
struct Product {
  Draws high, low;
};
inline Product multiply(Draws a, std::uint32_t b) {
  const DrawTag d;
  const hn::RepartitionToWide<DrawTag> wide;
  const Draws factor = hn::Set(d, b);
  const auto even = hn::MulEven(a, factor);
  const Draws odd_lanes = hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, a)));
  const Draws odd = hn::BitCast(d, hn::MulEven(odd_lanes, factor));
  const Draws even_high = hn::BitCast(d, hn::ShiftRight<32>(even));
  return {hn::OddEven(odd, even_high), hn::Mul(a, factor)};
}

inline void draw(const RandomStream& random, std::uint64_t block, std::size_t blocks,
                 std::uint32_t* draws) {
  const DrawTag d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < blocks; i += lanes) {
    HWY_ALIGN std::uint32_t low[hn::MaxLanes(DrawTag())], high[hn::MaxLanes(DrawTag())];
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      low[lane] = static_cast<std::uint32_t>(block + i + lane);
      high[lane] = static_cast<std::uint32_t>((block + i + lane) >> 32);
    }
    Draws c0 = hn::Load(d, low), c1 = hn::Load(d, high);
    Draws c2 = hn::Set(d, random.step), c3 = hn::Set(d, random.stream);
    auto key0 = static_cast<std::uint32_t>(random.seed);
    auto key1 = static_cast<std::uint32_t>(random.seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const Product p0 = multiply(c0, 0xD2511F53), p1 = multiply(c2, 0xCD9E8D57);
      c0 = hn::Xor(hn::Xor(p1.high, c1), hn::Set(d, key0));
      c1 = p1.low;
      c2 = hn::Xor(hn::Xor(p0.high, c3), hn::Set(d, key1));
      c3 = p0.low;
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    hn::StoreInterleaved4(c0, c1, c2, c3, d, draws + 4 * i);
  }
}
#endif

}  // namespace
}  // namespace concord::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // CONCORD_BASE_PHILOX_INL_H_

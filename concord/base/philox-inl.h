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

// A block in each lane: the counter's four words.
struct Counters {
  Draws c0, c1, c2, c3;
};
inline Counters counters_from(const RandomStream& random, std::uint64_t block) {
  const DrawTag d;
  const Draws low = hn::Iota(d, static_cast<std::uint32_t>(block));
  const Draws first = hn::Set(d, static_cast<std::uint32_t>(block));
  // Where the lower word has begun again, one more.
  const Draws carry = hn::VecFromMask(d, hn::Lt(low, first));
  const Draws high = hn::Sub(hn::Set(d, static_cast<std::uint32_t>(block >> 32)), carry);
  return {low, high, hn::Set(d, random.step), hn::Set(d, random.stream)};
}
HWY_INLINE void run_round(Counters& c, std::uint32_t key0, std::uint32_t key1) {
  const DrawTag d;
  const Product p0 = multiply(c.c0, 0xD2511F53), p1 = multiply(c.c2, 0xCD9E8D57);
  c = {hn::Xor(hn::Xor(p1.high, c.c1), hn::Set(d, key0)), p1.low,
       hn::Xor(hn::Xor(p0.high, c.c3), hn::Set(d, key1)), p0.low};
}

// Four vectors of blocks at once: a round waits for the products of the one before.
inline void draw(const RandomStream& random, std::uint64_t block, std::size_t blocks,
                 std::uint32_t* draws) {
  const DrawTag d;
  const std::size_t lanes = hn::Lanes(d);
  const auto key0 = static_cast<std::uint32_t>(random.seed);
  const auto key1 = static_cast<std::uint32_t>(random.seed >> 32);
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  constexpr std::uint32_t kRounds = 10;
  const auto store = [&](const Counters& c, std::size_t at) {
    hn::StoreInterleaved4(c.c0, c.c1, c.c2, c.c3, d, draws + 4 * at);
  };
  std::size_t i = 0;
  for (; i + 4 * lanes <= blocks; i += 4 * lanes) {
    Counters a = counters_from(random, block + i);
    Counters b = counters_from(random, block + i + lanes);
    Counters c = counters_from(random, block + i + 2 * lanes);
    Counters e = counters_from(random, block + i + 3 * lanes);
    for (std::uint32_t round = 0; round < kRounds; ++round) {
      run_round(a, key0 + round * kWeyl0, key1 + round * kWeyl1);
      run_round(b, key0 + round * kWeyl0, key1 + round * kWeyl1);
      run_round(c, key0 + round * kWeyl0, key1 + round * kWeyl1);
      run_round(e, key0 + round * kWeyl0, key1 + round * kWeyl1);
    }
    store(a, i);
    store(b, i + lanes);
    store(c, i + 2 * lanes);
    store(e, i + 3 * lanes);
  }
  for (; i < blocks; i += lanes) {
    Counters a = counters_from(random, block + i);
    for (std::uint32_t round = 0; round < kRounds; ++round) {
      run_round(a, key0 + round * kWeyl0, key1 + round * kWeyl1);
    }
    store(a, i);
  }
}
#endif

}  // namespace
}  // namespace concord::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // CONCORD_BASE_PHILOX_INL_H_

#include "concord/comm/codec_vectors.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/comm/codec_vectors.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/philox-inl.h"

HWY_BEFORE_NAMESPACE();
namespace concord::comm::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kLanes = 16;
using D = hn::CappedTag<float, kLanes>;
using V = hn::Vec<D>;
using DI = hn::RebindToSigned<D>;
using DU = hn::RebindToUnsigned<D>;
using Halves = hn::Rebind<std::uint16_t, D>;
using F16s = hn::Rebind<hwy::float16_t, D>;
using Bytes = hn::Rebind<std::int8_t, D>;

// Calls whole(i) for vectors that begin at i, and one(i) for the numbers behind the last.
template <typename Whole, typename One>
HWY_INLINE void for_all(std::size_t count, Whole whole, One one) {
  const std::size_t lanes = hn::Lanes(D());
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) whole(i);
  for (; i < count; ++i) one(i);
}

void AddValues(const float* values, float* kept, std::size_t count) {
  const D d;
  for_all(
      count,
      [&](std::size_t i) {
        hn::StoreU(hn::Add(hn::LoadU(d, kept + i), hn::LoadU(d, values + i)), d, kept + i);
      },
      [&](std::size_t i) { kept[i] += values[i]; });
}

bool AllBelow(const float* x, float bound, std::size_t count) {
  const D d;
  const V most = hn::Set(d, bound);
  auto all = hn::Eq(most, most);
  bool rest = true;
  for_all(
      count, [&](std::size_t i) { all = hn::And(all, hn::Lt(hn::Abs(hn::LoadU(d, x + i)), most)); },
      [&](std::size_t i) { rest = rest && std::abs(x[i]) < bound; });
  return rest && hn::AllTrue(d, all);
}

float LargestMagnitude(const float* x, std::size_t count) {
  const D d;
  V largest = hn::Zero(d);
  float rest = 0;
  for_all(
      count, [&](std::size_t i) { largest = hn::Max(largest, hn::Abs(hn::LoadU(d, x + i))); },
      [&](std::size_t i) { rest = std::max(rest, std::abs(x[i])); });
  return std::max(rest, hn::GetLane(hn::MaxOfLanes(d, largest)));
}

// In 16 lanes of f32 for 4096 numbers, and these in double.
double AddAndSumMagnitudes(const float* values, float* kept, std::size_t count) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  constexpr std::size_t kRun = 4096;
  double sum = 0;
  while (count > 0) {
    const std::size_t run = std::min(count, kRun), whole = run / kLanes * kLanes;
    HWY_ALIGN float sums[kLanes];
    for (std::size_t lane = 0; lane < kLanes; lane += lanes) {
      V of_lanes = hn::Zero(d);
      for (std::size_t i = lane; i < whole; i += kLanes) {
        const V v = hn::Add(hn::LoadU(d, kept + i), hn::LoadU(d, values + i));
        hn::StoreU(v, d, kept + i);
        of_lanes = hn::Add(of_lanes, hn::Abs(v));
      }
      hn::StoreU(of_lanes, d, sums + lane);
    }
    for (const float one : sums) sum += double{one};
    for (std::size_t i = whole; i < run; ++i) sum += std::abs(double{kept[i] += values[i]});
    values += run;
    kept += run;
    count -= run;
  }
  return sum;
}

std::uint16_t bf16_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void ToBf16(const float* x, std::uint16_t* out, std::size_t count) {
  const D d;
  const DI integers;
  const DU bits;
  for_all(
      count,
      [&](std::size_t i) {
        const auto wide = hn::BitCast(bits, hn::LoadU(d, x + i));
        const auto odd = hn::And(hn::ShiftRight<16>(wide), hn::Set(bits, 1));
        const auto upper = hn::ShiftRight<16>(hn::Add(wide, hn::Add(odd, hn::Set(bits, 0x7fff))));
        hn::StoreU(hn::DemoteTo(Halves(), hn::BitCast(integers, upper)), Halves(), out + i);
      },
      [&](std::size_t i) { out[i] = bf16_of(x[i]); });
}

void FromBf16(const std::uint16_t* x, bool adds, float* out, std::size_t count) {
  const D d;
  const DU bits;
  const auto at = [&](std::size_t i) {
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(bits, hn::LoadU(Halves(), x + i))));
  };
  const auto one = [&](std::size_t i) {
    const std::uint32_t wide = std::uint32_t{x[i]} << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  };
  if (adds) {
    for_all(
        count,
        [&](std::size_t i) { hn::StoreU(hn::Add(hn::LoadU(d, out + i), at(i)), d, out + i); },
        [&](std::size_t i) { out[i] += one(i); });
  } else {
    for_all(
        count, [&](std::size_t i) { hn::StoreU(at(i), d, out + i); },
        [&](std::size_t i) { out[i] = one(i); });
  }
}

// The last numbers as a vector whose other lanes are 0.
template <typename Use>
HWY_INLINE void with_rest(const float* x, std::size_t count, Use use) {
  HWY_ALIGN float lanes[kLanes] = {};
  const std::size_t whole = count / hn::Lanes(D()) * hn::Lanes(D());
  if (whole == count) return;
  std::copy(x + whole, x + count, lanes);
  use(whole, hn::LoadU(D(), lanes));
}

HWY_INLINE hn::Vec<F16s> f16_of(V v) {
  const D d;
  const V most = hn::Set(d, 65504.0f);
  return hn::DemoteTo(F16s(), hn::Min(hn::Max(v, hn::Neg(most)), most));
}

void ToF16(const float* x, std::uint16_t* out, std::size_t count) {
  auto* const halves = reinterpret_cast<hwy::float16_t*>(out);
  for_all(
      count, [&](std::size_t i) { hn::StoreU(f16_of(hn::LoadU(D(), x + i)), F16s(), halves + i); },
      [](std::size_t) {});
  with_rest(x, count, [&](std::size_t whole, V v) {
    HWY_ALIGN hwy::float16_t rest[kLanes];
    hn::StoreU(f16_of(v), F16s(), rest);
    std::memcpy(out + whole, rest, (count - whole) * sizeof(std::uint16_t));
  });
}

void FromF16(const std::uint16_t* x, bool adds, float* out, std::size_t count) {
  const D d;
  const auto put = [&](V v, float* to) {
    hn::StoreU(adds ? hn::Add(hn::LoadU(d, to), v) : v, d, to);
  };
  const auto* const halves = reinterpret_cast<const hwy::float16_t*>(x);
  const std::size_t lanes = hn::Lanes(d), whole = count / lanes * lanes;
  for (std::size_t i = 0; i < whole; i += lanes) {
    put(hn::PromoteTo(d, hn::LoadU(F16s(), halves + i)), out + i);
  }
  if (whole == count) return;
  HWY_ALIGN hwy::float16_t rest[kLanes] = {};
  HWY_ALIGN float sums[kLanes] = {};
  std::memcpy(rest, x + whole, (count - whole) * sizeof(std::uint16_t));
  std::copy(out + whole, out + count, sums);
  put(hn::PromoteTo(d, hn::LoadU(F16s(), rest)), sums);
  std::copy_n(sums, count - whole, out + whole);
}

void SignsOf(const float* x, std::uint8_t* bits, std::size_t count) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    std::uint32_t word = 0;
    for (std::size_t lane = 0; lane < 32; lane += lanes) {
      std::uint8_t some[8] = {};
      const V v = hn::LoadU(d, x + i + lane);
      hn::StoreMaskBits(d, hn::Lt(v, hn::Zero(d)), some);
      word |= (std::uint32_t{some[0]} | std::uint32_t{some[1]} << 8) << lane;
    }
    std::memcpy(bits + i / 8, &word, sizeof word);
  }
  for (std::size_t byte = i / 8; byte < (count + 7) / 8; ++byte) bits[byte] = 0;
  for (; i < count; ++i) {
    bits[i / 8] = static_cast<std::uint8_t>(bits[i / 8] | (x[i] < 0 ? 1 : 0) << i % 8);
  }
}

void TakeSigns(float* x, float scale, std::uint8_t* bits, std::size_t count) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const V of_all = hn::Set(d, scale), opposite = hn::Neg(of_all);
  std::size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    std::uint32_t word = 0;
    for (std::size_t lane = 0; lane < 32; lane += lanes) {
      std::uint8_t some[8] = {};
      const V v = hn::LoadU(d, x + i + lane);
      const auto below = hn::Lt(v, hn::Zero(d));
      hn::StoreMaskBits(d, below, some);
      word |= (std::uint32_t{some[0]} | std::uint32_t{some[1]} << 8) << lane;
      hn::StoreU(hn::Sub(v, hn::IfThenElse(below, opposite, of_all)), d, x + i + lane);
    }
    std::memcpy(bits + i / 8, &word, sizeof word);
  }
  SignsOf(x + i, bits + i / 8, count - i);
  for (; i < count; ++i) x[i] -= x[i] < 0 ? -scale : scale;
}

void FromSigns(const std::uint8_t* bits, float scale, bool adds, float* out, std::size_t count) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const V of_all = hn::Set(d, scale);
  std::size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    std::uint32_t word;
    std::memcpy(&word, bits + i / 8, sizeof word);
    for (std::size_t lane = 0; lane < 32; lane += lanes) {
      const std::uint32_t some = word >> lane;
      std::uint8_t bytes[8] = {static_cast<std::uint8_t>(some),
                               static_cast<std::uint8_t>(some >> 8)};
      const V v = hn::IfThenElse(hn::LoadMaskBits(d, bytes), hn::Neg(of_all), of_all);
      float* const to = out + i + lane;
      hn::StoreU(adds ? hn::Add(hn::LoadU(d, to), v) : v, d, to);
    }
  }
  for (; i < count; ++i) {
    const float value = (bits[i / 8] >> i % 8 & 1) != 0 ? -scale : scale;
    out[i] = adds ? out[i] + value : value;
  }
}

HWY_INLINE hn::Vec<DI> rounded(V v, hn::Vec<DI> drawn, V factor, V most) {
  const D d;
  constexpr float kUnit = 1.0f / 65536;
  const V u = hn::Mul(hn::Add(hn::ConvertTo(d, drawn), hn::Set(d, 0.5f)), hn::Set(d, kUnit));
  const V level = hn::Min(hn::Floor(hn::Add(hn::Mul(hn::Abs(v), factor), u)), most);
  return hn::ConvertTo(DI(), hn::CopySign(level, v));
}
HWY_INLINE hn::Vec<DI> drawn_at(const std::uint16_t* draws) {
  return hn::BitCast(DI(), hn::PromoteTo(DU(), hn::LoadU(Halves(), draws)));
}

void RoundRun(const float* x, float scale, float most, const std::uint16_t* draws,
              std::int8_t* levels, std::size_t count) {
  const D d;
  const V factor = hn::Set(d, scale == 0 ? 0 : most / scale);
  const V limit = hn::Set(d, scale == 0 ? 0 : most);
  for_all(
      count,
      [&](std::size_t i) {
        const auto whole = rounded(hn::LoadU(d, x + i), drawn_at(draws + i), factor, limit);
        hn::StoreU(hn::DemoteTo(Bytes(), whole), Bytes(), levels + i);
      },
      [](std::size_t) {});
  with_rest(x, count, [&](std::size_t whole, V v) {
    HWY_ALIGN std::uint16_t drawn[kLanes] = {};
    HWY_ALIGN std::int8_t rest[kLanes];
    std::copy_n(draws + whole, count - whole, drawn);
    hn::StoreU(hn::DemoteTo(Bytes(), rounded(v, drawn_at(drawn), factor, limit)), Bytes(), rest);
    std::copy_n(rest, count - whole, levels + whole);
  });
}

void RoundRuns(const float* x, std::size_t run, float most, const std::uint16_t* draws,
               float* scales, std::int8_t* levels, std::size_t count) {
  for (std::size_t i = 0; i < count; i += run) {
    const std::size_t some = std::min(run, count - i);
    const float largest = LargestMagnitude(x + i, some);
    // Below that its reciprocal may be infinite.
    const float scale = largest < 1e-35f ? 0 : largest;
    scales[i / run] = scale;
    RoundRun(x + i, scale, most, draws + i, levels + i, some);
  }
}

void FromInt8(const std::int8_t* x, float scale, bool adds, float* out, std::size_t count) {
  const D d;
  const DI integers;
  const V of_all = hn::Set(d, scale);
  for_all(
      count,
      [&](std::size_t i) {
        const V v =
            hn::Mul(hn::ConvertTo(d, hn::PromoteTo(integers, hn::LoadU(Bytes(), x + i))), of_all);
        hn::StoreU(adds ? hn::Add(hn::LoadU(d, out + i), v) : v, d, out + i);
      },
      [&](std::size_t i) {
        const float value = static_cast<float>(x[i]) * scale;
        out[i] = adds ? out[i] + value : value;
      });
}

void FromInt8Runs(const std::int8_t* x, std::size_t run, const float* scales, float factor,
                  bool adds, float* out, std::size_t count) {
  for (std::size_t i = 0; i < count; i += run) {
    FromInt8(x + i, scales[i / run] * factor, adds, out + i, std::min(run, count - i));
  }
}

void PackNibbles(const std::int8_t* x, std::uint8_t* out, std::size_t count) {
  for (std::size_t i = 0; i < count / 2; ++i) {
    out[i] = static_cast<std::uint8_t>((x[2 * i] & 15) | (x[2 * i + 1] & 15) << 4);
  }
  if (count % 2 != 0) out[count / 2] = static_cast<std::uint8_t>(x[count - 1] & 15);
}

void UnpackNibbles(const std::uint8_t* x, std::int8_t* out, std::size_t count) {
  for (std::size_t i = 0; i < (count + 1) / 2; ++i) {
    // The sign of four bits.
    out[2 * i] = static_cast<std::int8_t>(((x[i] & 15) ^ 8) - 8);
    out[2 * i + 1] = static_cast<std::int8_t>(((x[i] >> 4) ^ 8) - 8);
  }
}

void Draw16(const RandomStream& random, std::uint64_t first, std::uint16_t* draws,
            std::size_t count) {
  constexpr std::size_t kBlocks = 128, kRun = 8 * kBlocks;  // numbers at once
  std::size_t i = 0;
  for (; i + kRun <= count; i += kRun) {
    concord::HWY_NAMESPACE::draw(random, first + i / 8, kBlocks,
                                 reinterpret_cast<std::uint32_t*>(draws + i));
  }
  if (i == count) return;
  HWY_ALIGN std::uint32_t rest[4 * kBlocks];
  concord::HWY_NAMESPACE::draw(random, first + i / 8, kBlocks, rest);
  std::memcpy(draws + i, rest, (count - i) * sizeof(std::uint16_t));
}

// A lane of a run is a group.
std::size_t GroupMaxima(const float* x, std::size_t group, float* maxima, std::size_t count) {
  const D d;
  const std::size_t lanes = hn::Lanes(d), run = kLanes * group;
  std::size_t groups = 0, begin = 0;
  for (; begin + run <= count; begin += run) {
    for (std::size_t lane = 0; lane < kLanes; lane += lanes) {
      V largest = hn::Zero(d);
      for (std::size_t i = lane; i < run; i += kLanes) {
        largest = hn::Max(largest, hn::Abs(hn::LoadU(d, x + begin + i)));
      }
      hn::StoreU(largest, d, maxima + groups);
      groups += lanes;
    }
  }
  for (; begin < count; ++begin) maxima[groups++] = std::abs(x[begin]);
  return groups;
}

std::size_t FindMagnitudes(const float* x, float threshold, std::uint16_t* places, std::size_t most,
                           std::size_t count) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const V least = hn::Set(d, threshold);
  std::size_t found = 0, i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto mask = hn::Ge(hn::Abs(hn::LoadU(d, x + i)), least);
    if (hn::AllFalse(d, mask)) continue;
    std::uint8_t bytes[8] = {};
    hn::StoreMaskBits(d, mask, bytes);
    for (std::uint32_t bits = bytes[0] | std::uint32_t{bytes[1]} << 8; bits != 0;
         bits &= bits - 1) {
      if (found == most) return found;
      places[found++] =
          static_cast<std::uint16_t>(i + static_cast<std::size_t>(__builtin_ctz(bits)));
    }
  }
  for (; i < count; ++i) {
    if (std::abs(x[i]) < threshold) continue;
    if (found == most) return found;
    places[found++] = static_cast<std::uint16_t>(i);
  }
  return found;
}

}  // namespace
}  // namespace concord::comm::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::comm {

HWY_EXPORT(AddValues);
HWY_EXPORT(AddAndSumMagnitudes);
HWY_EXPORT(AllBelow);
HWY_EXPORT(LargestMagnitude);
HWY_EXPORT(ToBf16);
HWY_EXPORT(FromBf16);
HWY_EXPORT(ToF16);
HWY_EXPORT(FromF16);
HWY_EXPORT(SignsOf);
HWY_EXPORT(TakeSigns);
HWY_EXPORT(FromSigns);
HWY_EXPORT(RoundRun);
HWY_EXPORT(RoundRuns);
HWY_EXPORT(FromInt8);
HWY_EXPORT(FromInt8Runs);
HWY_EXPORT(PackNibbles);
HWY_EXPORT(UnpackNibbles);
HWY_EXPORT(Draw16);
HWY_EXPORT(GroupMaxima);
HWY_EXPORT(FindMagnitudes);

void add_values(const float* values, float* kept, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(AddValues)(values, kept, count);
}
bool all_below(const float* x, float bound, std::size_t count) {
  return HWY_DYNAMIC_DISPATCH(AllBelow)(x, bound, count);
}
float largest_magnitude(const float* x, std::size_t count) {
  return HWY_DYNAMIC_DISPATCH(LargestMagnitude)(x, count);
}
double add_and_sum_magnitudes(const float* values, float* kept, std::size_t count) {
  return HWY_DYNAMIC_DISPATCH(AddAndSumMagnitudes)(values, kept, count);
}
void to_bf16(const float* x, std::uint16_t* out, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(ToBf16)(x, out, count);
}
void to_f16(const float* x, std::uint16_t* out, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(ToF16)(x, out, count);
}
void from_bf16(const std::uint16_t* x, bool adds, float* out, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(FromBf16)(x, adds, out, count);
}
void from_f16(const std::uint16_t* x, bool adds, float* out, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(FromF16)(x, adds, out, count);
}
void signs_of(const float* x, std::uint8_t* bits, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(SignsOf)(x, bits, count);
}
void take_signs(float* x, float scale, std::uint8_t* bits, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(TakeSigns)(x, scale, bits, count);
}
void from_signs(const std::uint8_t* bits, float scale, bool adds, float* out, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(FromSigns)(bits, scale, adds, out, count);
}
void round_at_random(const float* x, std::size_t run, float most, const std::uint16_t* draws,
                     float* scales, std::int8_t* levels, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(RoundRuns)(x, run, most, draws, scales, levels, count);
}
void round_at_random(const float* x, float scale, float most, const std::uint16_t* draws,
                     std::int8_t* levels, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(RoundRun)(x, scale, most, draws, levels, count);
}
void from_int8(const std::int8_t* x, float scale, bool adds, float* out, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(FromInt8)(x, scale, adds, out, count);
}
void from_int8(const std::int8_t* x, std::size_t run, const float* scales, float factor, bool adds,
               float* out, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(FromInt8Runs)(x, run, scales, factor, adds, out, count);
}
void pack_nibbles(const std::int8_t* x, std::uint8_t* out, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(PackNibbles)(x, out, count);
}
void unpack_nibbles(const std::uint8_t* x, std::int8_t* out, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(UnpackNibbles)(x, out, count);
}
void draw16(const RandomStream& random, std::uint64_t first, std::uint16_t* draws,
            std::size_t count) {
  HWY_DYNAMIC_DISPATCH(Draw16)(random, first, draws, count);
}
std::size_t group_maxima(const float* x, std::size_t group, float* maxima, std::size_t count) {
  return HWY_DYNAMIC_DISPATCH(GroupMaxima)(x, group, maxima, count);
}
std::size_t find_magnitudes(const float* x, float threshold, std::uint16_t* places,
                            std::size_t most, std::size_t count) {
  return HWY_DYNAMIC_DISPATCH(FindMagnitudes)(x, threshold, places, most, count);
}

}  // namespace concord::comm
#endif

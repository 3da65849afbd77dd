#include "concord/runtime/buckets.h"

#include <algorithm>
#include <iterator>
#include <map>

namespace concord {

std::vector<Bucket> choose_buckets(const Program& program, int half, std::size_t bucket_bytes) {
  constexpr std::size_t kLastBytes = std::size_t{1} << 20;
  constexpr std::size_t kQueued = 64, kRounds = 256, kLeast = std::size_t{1} << 20;
  const std::size_t end = program.halves[static_cast<std::size_t>(half)].sums_bytes;
  bucket_bytes = program.in_rounds ? std::min(bucket_bytes, std::max(kLeast, end / kRounds))
                                   : std::max(bucket_bytes, end / kQueued);
  std::map<std::size_t, const Sum*> sums;  // by offset
  for (const Sum& sum : program.sums) {
    if (sum.half == half) sums.emplace(sum.place, &sum);
  }
  const auto end_of = [&](auto sum) {
    return std::next(sum) == sums.end() ? end : std::next(sum)->first;
  };
  const auto is_scattered = [](auto sum) { return sum->second->part_bytes > 0; };
  const auto is_encoded = [](auto sum) { return sum->second->encoding.has_value(); };
  const auto is_factored = [&](auto sum) {
    return is_encoded(sum) && sum->second->encoding->rank > 0;
  };
  std::size_t last = end;  // where the last bucket begins
  if (last > bucket_bytes) {
    auto sum = std::prev(sums.end());
    while (sum != sums.begin() && end - std::prev(sum)->first <= kLastBytes) --sum;
    last = sum->first;
  }
  std::vector<Bucket> buckets;
  for (auto sum = sums.begin(); sum != sums.end();) {
    Bucket bucket{.offset = sum->first};
    const auto first = sum;
    auto before = sum;
    do {
      bucket.bytes = end_of(sum) - bucket.offset;
      if (is_scattered(sum)) {
        bucket.pieces.push_back({.offset = sum->first,
                                 .part_bytes = sum->second->part_bytes,
                                 .out_offset = sum->second->part.offset});
      }
      if (is_encoded(sum)) {
        bucket.encoded.push_back(static_cast<std::size_t>(sum->second - program.sums.data()));
      }
      before = sum++;
    } while (sum != sums.end() && sum->first != last && is_scattered(sum) == is_scattered(first) &&
             is_encoded(sum) == is_encoded(first) && is_factored(sum) == is_factored(first) &&
             end_of(sum) - bucket.offset <= bucket_bytes);
    bucket.label =
        comm::Label(first == before ? first->second->name
                                    : first->second->name + " to " + before->second->name);
    buckets.push_back(std::move(bucket));
  }
  return buckets;
}

}  // namespace concord

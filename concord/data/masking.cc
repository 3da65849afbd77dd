#include "concord/data/masking.h"

#include <algorithm>

#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/data/streams.h"

namespace concord::data {

std::int64_t Masking::chosen(std::int64_t length) {
  return std::max<std::int64_t>(1, (15 * length + 50) / 100);
}

// Selection sampling (Fan, Muller, Rezucha 1962; Knuth, "The Art of Computer Programming", volume
// 2, algorithm 3.4.2 S): a token is chosen with the probability (still to choose) / (tokens left).
void Masking::apply(std::int64_t epoch, std::int64_t index, std::span<TokenId> tokens,
                    std::span<std::int32_t> labels) const {
  CONCORD_CHECK(tokens.size() == labels.size());
  const RandomStream stream{seed_, kMaskStream, static_cast<std::uint32_t>(epoch)};
  const std::uint64_t first = static_cast<std::uint64_t>(index) * tokens.size();
  auto wanted = static_cast<std::uint32_t>(chosen(static_cast<std::int64_t>(tokens.size())));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const PhiloxBlock bits = stream.block(first + i);
    labels[i] = -1;
    if (uniform_below(bits[0], static_cast<std::uint32_t>(tokens.size() - i)) >= wanted) continue;
    --wanted;
    labels[i] = tokens[i];
    const std::uint32_t tenth = uniform_below(bits[1], 10);
    if (tenth < 8) tokens[i] = mask_;
    if (tenth == 8) tokens[i] = static_cast<TokenId>(uniform_below(bits[2], vocabulary_));
  }
}

}  // namespace concord::data

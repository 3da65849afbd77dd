// Which sums over ranks are made together.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "concord/runtime/program.h"

namespace concord {

// As many sums together as `bucket_bytes` hold, in order of their places; the last ones, for which
// nothing is left to compute meanwhile, apart. `end`: where the last sum's place ends, in bytes.
std::vector<Bucket> choose_buckets(std::span<const Sum> sums, std::size_t end,
                                   std::size_t bucket_bytes);

}  // namespace concord

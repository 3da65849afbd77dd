// Which sums over ranks are made together.
#pragma once

#include <cstddef>
#include <vector>

#include "concord/runtime/program.h"

namespace concord {

// As many sums of a half of the program together as `bucket_bytes` hold, in order of their places;
// the last ones, for which nothing is left to compute meanwhile, apart. All of a step may wait in
// the ranks' queue, so that large programs have larger buckets; in rounds one at a time is on its
// way, which takes little beside a rank's parts, so that small programs have smaller ones.
std::vector<Bucket> choose_buckets(const Program& program, int half, std::size_t bucket_bytes);

}  // namespace concord

#include "concord/graph/shard_copies.h"

namespace concord {

std::vector<BlockCopy> shard_copies(const TensorType& whole, const Placement& split, int ranks,
                                    int index) {
  const AroundDim all(whole, split.dim);
  std::vector<BlockCopy> copies;
  std::int64_t at = 0;  // in a row of the part
  for (const Range& range : ranges_of(all.extent, split, ranks, index)) {
    const std::int64_t bytes = (range.end - range.begin) * all.index_bytes;
    copies.push_back({.rows = all.rows,
                      .bytes = bytes,
                      .from = range.begin * all.index_bytes,
                      .from_stride = all.bytes,
                      .to = at,
                      .to_stride = all.bytes / ranks});
    at += bytes;
  }
  return copies;
}

BlockCopy reversed(const BlockCopy& copy) {
  return {copy.rows, copy.bytes, copy.to, copy.to_stride, copy.from, copy.from_stride};
}

}  // namespace concord

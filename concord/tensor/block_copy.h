// Copies of parts of tensors, row-major, as runs of bytes with gaps between them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "concord/base/parallel.h"
#include "concord/tensor/buffer.h"

namespace concord {

// Copies of `rows` runs of `bytes` bytes each, with gaps between them.
struct BlockCopy {
  std::int64_t rows, bytes;
  std::int64_t from, from_stride, to, to_stride;  // bytes

  // Bytes for which another thread pays.
  static constexpr std::int64_t kGrain = 1 << 16;

  void run(const std::byte* x, std::byte* y) const {
    if (bytes == 0) return;
    parallel_for(rows, std::max<std::int64_t>(1, kGrain / bytes),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t row = begin; row < end; ++row) {
                     std::memcpy(y + to + row * to_stride, x + from + row * from_stride,
                                 static_cast<std::size_t>(bytes));
                   }
                 });
  }
};

// `shape` seen from `dim`: rows before it, and bytes of all its indices and of one index.
struct AroundDim {
  AroundDim(const TensorType& type, std::int64_t dim)
      : extent(type.shape[static_cast<int>(dim)]),
        index_bytes(static_cast<std::int64_t>(size_of(type.dtype))) {
    for (int d = 0; d < type.shape.rank(); ++d) {
      if (d < dim) rows *= type.shape[d];
      if (d > dim) index_bytes *= type.shape[d];
    }
    bytes = index_bytes * extent;
  }
  std::int64_t rows = 1, extent, bytes, index_bytes;
};

}  // namespace concord

// Broadcasting for the reference kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "concord/kernels/ref/reference.h"

namespace concord::ref {

// For each element of a tensor of shape `to`, in row-major order, the index of the element of a
// tensor of shape `from` that broadcasting puts there.
inline std::vector<std::int64_t> broadcast_indices(const Shape& from, const Shape& to) {
  const std::vector<std::int64_t> from_strides = from.row_major_strides();
  const std::vector<std::int64_t> to_strides = to.row_major_strides();
  std::vector<std::int64_t> indices(static_cast<std::size_t>(to.elements()));
  for (std::size_t i = 0; i < indices.size(); ++i) {
    for (int d = 1; d <= from.rank(); ++d) {
      if (from[-d] == 1) continue;
      const auto stride = to_strides[static_cast<std::size_t>(to.rank() - d)];
      const std::int64_t index = static_cast<std::int64_t>(i) / stride % to[-d];
      indices[i] += index * from_strides[static_cast<std::size_t>(from.rank() - d)];
    }
  }
  return indices;
}

// out = f(in0, in1), element by element with broadcasting.
template <typename F>
void broadcast_apply(const Call& c, F f) {
  Array& y = c.out(0);
  const std::vector<std::int64_t> a = broadcast_indices(c.in(0).shape, y.shape);
  const std::vector<std::int64_t> b = broadcast_indices(c.in(1).shape, y.shape);
  for (std::size_t i = 0; i < y.data.size(); ++i) y.data[i] = f(c.in(0)[a[i]], c.in(1)[b[i]]);
}

}  // namespace concord::ref

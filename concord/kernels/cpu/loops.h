// Nested loops over the elements of a row-major tensor, and where the operands stand meanwhile.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "concord/tensor/shape.h"

namespace concord::cpu {

// `Operands` tensors walked together. `extents`: of the loops, outermost first. `strides[o][d]`:
// elements that operand o moves along loop d; 0 where it repeats.
template <std::size_t Operands>
struct Loops {
  std::vector<std::int64_t> extents;
  std::array<std::vector<std::int64_t>, Operands> strides;

  int depth() const { return static_cast<int>(extents.size()); }
  // The innermost loop, whose extent is 1 where there is no loop.
  std::int64_t inner() const { return extents.empty() ? 1 : extents.back(); }
  std::int64_t inner_stride(std::size_t operand) const {
    return extents.empty() ? 0 : strides[operand].back();
  }
  // Where each operand stands at the beginning of row `row`, a row being one run of the innermost
  // loop.
  std::array<std::int64_t, Operands> row_offsets(std::int64_t row) const {
    std::array<std::int64_t, Operands> offsets{};
    for (int d = depth() - 2; d >= 0; --d) {
      const auto i = static_cast<std::size_t>(d);
      const std::int64_t index = d == 0 ? row : row % extents[i];
      row /= extents[i];
      for (std::size_t o = 0; o < Operands; ++o) offsets[o] += index * strides[o][i];
    }
    return offsets;
  }
};

// Elements between neighbours along each dim of `to` of a row-major tensor of shape `from` that is
// broadcast to it.
inline std::vector<std::int64_t> broadcast_strides(const Shape& from, const Shape& to) {
  const std::vector<std::int64_t> of_from = from.row_major_strides();
  std::vector<std::int64_t> strides(static_cast<std::size_t>(to.rank()), 0);
  for (int d = 1; d <= from.rank(); ++d) {
    if (from[-d] == 1) continue;
    strides[static_cast<std::size_t>(to.rank() - d)] =
        of_from[static_cast<std::size_t>(from.rank() - d)];
  }
  return strides;
}

// The same walk with as few loops as possible: loops of extent 1 dropped, neighbouring loops merged
// where every operand runs through both as through one.
template <std::size_t Operands>
Loops<Operands> merged(const Loops<Operands>& loops) {
  Loops<Operands> result;
  for (std::size_t d = 0; d < loops.extents.size(); ++d) {
    if (loops.extents[d] == 1) continue;
    bool as_one = !result.extents.empty();
    for (std::size_t o = 0; o < Operands && as_one; ++o) {
      as_one = result.strides[o].back() == loops.strides[o][d] * loops.extents[d];
    }
    if (as_one) {
      result.extents.back() *= loops.extents[d];
      for (std::size_t o = 0; o < Operands; ++o) result.strides[o].back() = loops.strides[o][d];
      continue;
    }
    result.extents.push_back(loops.extents[d]);
    for (std::size_t o = 0; o < Operands; ++o) result.strides[o].push_back(loops.strides[o][d]);
  }
  return result;
}

}  // namespace concord::cpu

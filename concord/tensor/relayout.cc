#include "concord/tensor/relayout.h"

#include <cstring>
#include <vector>

namespace concord {
namespace {

// Calls visit(row_major_index, stored_index) for the elements of each innermost row in turn.
template <typename Visit>
void for_each_element(const Shape& shape, const Layout& layout, Visit visit) {
  const int rank = shape.rank();
  if (shape.elements() == 0) return;
  if (rank == 0) return visit(0, 0);
  std::vector<std::vector<std::int64_t>> offsets;
  for (int d = 0; d < rank; ++d) offsets.push_back(layout.dim_offsets(shape, d));
  std::vector<std::size_t> index(static_cast<std::size_t>(rank), 0);
  const std::vector<std::int64_t>& row = offsets.back();
  std::int64_t plain = 0;
  while (true) {
    std::int64_t base = 0;
    for (std::size_t d = 0; d + 1 < index.size(); ++d) base += offsets[d][index[d]];
    for (const std::int64_t offset : row) visit(plain++, base + offset);
    int d = rank - 2;
    for (; d >= 0; --d) {
      const auto i = static_cast<std::size_t>(d);
      if (++index[i] < offsets[i].size()) break;
      index[i] = 0;
    }
    if (d < 0) return;
  }
}

template <typename Word>
void scatter(const TensorType& type, const Layout& layout, const std::byte* source,
             std::byte* destination) {
  const auto* from = reinterpret_cast<const Word*>(source);
  auto* to = reinterpret_cast<Word*>(destination);
  for_each_element(type.shape, layout,
                   [&](std::int64_t plain, std::int64_t stored) { to[stored] = from[plain]; });
}

template <typename Word>
void gather(const TensorType& type, const Layout& layout, const std::byte* source,
            std::byte* destination) {
  const auto* from = reinterpret_cast<const Word*>(source);
  auto* to = reinterpret_cast<Word*>(destination);
  for_each_element(type.shape, layout,
                   [&](std::int64_t plain, std::int64_t stored) { to[plain] = from[stored]; });
}

}  // namespace

std::size_t stored_bytes(const TensorType& type, const Layout& layout) {
  return static_cast<std::size_t>(layout.stored_elements(type.shape)) * size_of(type.dtype);
}

void to_layout(const TensorType& type, const Layout& layout, const std::byte* source,
               std::byte* destination) {
  if (layout.is_row_major()) {
    std::memcpy(destination, source, type.bytes());
    return;
  }
  std::memset(destination, 0, stored_bytes(type, layout));
  switch (size_of(type.dtype)) {
    case 1:
      return scatter<std::uint8_t>(type, layout, source, destination);
    case 2:
      return scatter<std::uint16_t>(type, layout, source, destination);
    case 4:
      return scatter<std::uint32_t>(type, layout, source, destination);
    default:
      return scatter<std::uint64_t>(type, layout, source, destination);
  }
}

void from_layout(const TensorType& type, const Layout& layout, const std::byte* source,
                 std::byte* destination) {
  if (layout.is_row_major()) {
    std::memcpy(destination, source, type.bytes());
    return;
  }
  switch (size_of(type.dtype)) {
    case 1:
      return gather<std::uint8_t>(type, layout, source, destination);
    case 2:
      return gather<std::uint16_t>(type, layout, source, destination);
    case 4:
      return gather<std::uint32_t>(type, layout, source, destination);
    default:
      return gather<std::uint64_t>(type, layout, source, destination);
  }
}

}  // namespace concord

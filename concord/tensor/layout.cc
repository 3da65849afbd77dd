#include "concord/tensor/layout.h"

#include <algorithm>
#include <numeric>

#include "concord/base/error.h"

namespace concord {
namespace {

// Whether the strides place every element where row-major order would. The stride of a dim of
// extent 1 is never used, so it does not count.
bool same_as_row_major(const Shape& shape, const std::vector<std::int64_t>& strides) {
  const std::vector<std::int64_t> expected = shape.row_major_strides();
  for (int d = 0; d < shape.rank(); ++d) {
    const auto i = static_cast<std::size_t>(d);
    if (shape[d] > 1 && strides[i] != expected[i]) return false;
  }
  return true;
}

// The dims of a layout that is not row-major, by falling stride.
std::vector<std::size_t> outermost_first(const Layout& layout) {
  std::vector<std::size_t> order(layout.strides().size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return layout.strides()[a] > layout.strides()[b];
  });
  return order;
}

}  // namespace

Layout::Layout(const Shape& shape, std::vector<std::int64_t> strides,
               std::vector<std::int64_t> padded, std::vector<Block> blocks)
    : strides_(std::move(strides)), padded_(std::move(padded)), blocks_(std::move(blocks)) {
  CONCORD_CHECK(strides_.size() == shape.dims().size() && padded_.size() == shape.dims().size());
  if (blocks_.empty() && padded_ == shape.dims() && same_as_row_major(shape, strides_)) {
    strides_.clear();
    padded_.clear();
  }
}

std::int64_t Layout::stored_elements(const Shape& shape) const {
  if (is_row_major()) return shape.elements();
  // The furthest tile of every dim, plus one tile.
  std::int64_t tile = 1;
  std::vector<std::int64_t> outer = padded_;
  for (const Block& block : blocks_) {
    tile *= block.size;
    outer[static_cast<std::size_t>(block.dim)] /= block.size;
  }
  std::int64_t last = 0;
  for (std::size_t d = 0; d < strides_.size(); ++d) {
    if (padded_[d] == 0) return 0;
    last += (outer[d] - 1) * strides_[d];
  }
  return last + tile;
}

std::vector<std::int64_t> Layout::dim_offsets(const Shape& shape, int d) const {
  std::vector<std::int64_t> offsets(static_cast<std::size_t>(shape[d]));
  if (is_row_major()) {
    const std::int64_t stride = shape.row_major_strides()[static_cast<std::size_t>(d)];
    for (std::size_t i = 0; i < offsets.size(); ++i)
      offsets[i] = static_cast<std::int64_t>(i) * stride;
    return offsets;
  }
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    auto rest = static_cast<std::int64_t>(i);
    std::int64_t inner_stride = 1;
    for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) {
      if (block->dim == d) {
        offsets[i] += rest % block->size * inner_stride;
        rest /= block->size;
      }
      inner_stride *= block->size;
    }
    offsets[i] += rest * strides_[static_cast<std::size_t>(d)];
  }
  return offsets;
}

Layout resized(const Layout& layout, const Shape& from, const Shape& to) {
  if (layout.is_row_major()) return {};
  CONCORD_CHECK(from.rank() == to.rank());
  const std::vector<std::size_t> order = outermost_first(layout);
  std::vector<std::int64_t> tiles = to.dims(), padded = to.dims(), strides(order.size());
  std::vector<std::int64_t> tile(order.size(), 1);
  std::int64_t stride = 1;
  for (const Layout::Block& block : layout.blocks()) {
    tile[static_cast<std::size_t>(block.dim)] *= block.size;
    stride *= block.size;
  }
  for (auto d = order.rbegin(); d != order.rend(); ++d) {
    tiles[*d] = (to.dims()[*d] + tile[*d] - 1) / tile[*d];
    padded[*d] = tiles[*d] * tile[*d];
    strides[*d] = stride;
    stride *= tiles[*d];
  }
  return Layout(to, std::move(strides), std::move(padded), layout.blocks());
}

std::vector<std::pair<std::int64_t, std::int64_t>> padding_of(const Layout& layout,
                                                              const Shape& shape) {
  if (!layout.has_padding(shape)) return {};
  std::vector<std::int64_t> offsets = {0};
  for (int d = 0; d < shape.rank(); ++d) {
    std::vector<std::int64_t> sums;
    for (const std::int64_t offset : offsets) {
      for (const std::int64_t more : layout.dim_offsets(shape, d)) sums.push_back(offset + more);
    }
    offsets = std::move(sums);
  }
  std::ranges::sort(offsets);
  offsets.push_back(layout.stored_elements(shape));
  std::vector<std::pair<std::int64_t, std::int64_t>> padding;
  std::int64_t next = 0;
  for (const std::int64_t offset : offsets) {
    if (offset > next) padding.emplace_back(next, offset - next);
    next = offset + 1;
  }
  return padding;
}

std::string to_string(const Layout& layout) {
  if (layout.is_row_major()) return "row-major";
  std::string text;
  for (const std::size_t d : outermost_first(layout))
    text += fmt::format("{}{}", text.empty() ? "" : ",", d);
  for (const Layout::Block& block : layout.blocks()) {
    text += fmt::format("|{}:{}", block.dim, block.size);
  }
  return text;
}

}  // namespace concord

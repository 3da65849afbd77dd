// Layout: where each element of a tensor lies in memory.
//
// A layout is row-major (the default), or strided and blocked: the dims listed in `blocks` are cut
// into tiles that lie innermost, so [N, C, H, W] with one block of 16 on dim 1 is oneDNN's nChw16c.
// Extents are padded up to whole tiles; padding holds zeros. The offset of an element is a sum over
// dims of a term that depends on that dim's index alone, which `dim_offsets` tabulates.
// Thread safety: immutable after construction.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "concord/tensor/shape.h"

namespace concord {

class Layout {
 public:
  struct Block {
    int dim;
    std::int64_t size;
    friend bool operator==(const Block&, const Block&) = default;
  };

  // Row-major for whatever shape it is used with.
  Layout() = default;
  // `strides[d]`: elements between neighbouring tiles (or indices, for a dim without blocks) of dim
  // d. `padded[d]`: extent of dim d rounded up to whole tiles. `blocks`: tiles, outermost first.
  // Becomes the row-major layout when it describes the same places.
  Layout(const Shape& shape, std::vector<std::int64_t> strides, std::vector<std::int64_t> padded,
         std::vector<Block> blocks);

  bool is_row_major() const { return strides_.empty(); }
  const std::vector<std::int64_t>& strides() const { return strides_; }
  const std::vector<std::int64_t>& padded() const { return padded_; }
  const std::vector<Block>& blocks() const { return blocks_; }

  // Elements of memory that a tensor of this shape occupies, padding included.
  std::int64_t stored_elements(const Shape& shape) const;
  // Whether some stored elements are padding.
  bool has_padding(const Shape& shape) const { return stored_elements(shape) != shape.elements(); }
  // For each index of dim `d`, its term of the element's offset.
  std::vector<std::int64_t> dim_offsets(const Shape& shape, int d) const;

  friend bool operator==(const Layout&, const Layout&) = default;

 private:
  std::vector<std::int64_t> strides_;
  std::vector<std::int64_t> padded_;
  std::vector<Block> blocks_;
};

// The layout of the same order and tiles, packed, for another shape of the same rank.
Layout resized(const Layout& layout, const Shape& from, const Shape& to);

// Which stored elements are padding, as {first, count} by rising offset.
std::vector<std::pair<std::int64_t, std::int64_t>> padding_of(const Layout& layout,
                                                              const Shape& shape);

// "row-major", or such as "nChw16c" written as dims by falling stride then blocks: "0,1,2,3|1:16".
std::string to_string(const Layout& layout);

}  // namespace concord

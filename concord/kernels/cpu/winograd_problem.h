// What Winograd's algorithm works on: where images, weights and the matrices of the 36 points lie.
// The vocabulary is that of winograd_convolution.cc.
#pragma once

#include <algorithm>
#include <cstdint>

namespace concord::cpu {

constexpr std::int64_t kBlock = 16;  // channels
constexpr std::int64_t kTile = 4;    // pixels of y along a side
constexpr std::int64_t kPatch = 6;   // pixels of x
constexpr std::int64_t kPoints = kPatch * kPatch;

struct Range {
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
};

// Images [samples, channels / kBlock, height, width, kBlock].
struct BlockedImages {
  std::int64_t channels, height, width;

  std::int64_t blocks() const { return channels / kBlock; }
  std::int64_t plane() const { return height * width * kBlock; }
};

// Rows of tiles are counted through all samples.
struct WinogradProblem {
  BlockedImages x, y;
  std::int64_t samples, padding_height, padding_width;
  std::int64_t tile_rows = (y.height + kTile - 1) / kTile;  // of a sample
  std::int64_t tile_columns = (y.width + kTile - 1) / kTile;

  std::int64_t rows() const { return samples * tile_rows; }
  // Pixels along a row of overlapping patches.
  std::int64_t patches_width() const { return tile_columns * kTile + kPatch - kTile; }
};

// Asks for a share of what these rows of tiles read or write, before they do: memory is slow, and
// the products have no use for it.
template <typename T>
struct Prefetch {
  const WinogradProblem& p;
  const BlockedImages& images;
  const T* data;
  Range channels, rows;
  bool written;

  void operator()(std::int64_t share, std::int64_t shares) const {
    constexpr auto kLine = static_cast<std::int64_t>(64 / sizeof(T));
    const std::int64_t lines = kTile * images.width * kBlock / kLine;  // of a row of tiles
    const std::int64_t blocks = channels.size() / kBlock, all = rows.size() * blocks * lines;
    std::int64_t i = all * share / shares;
    const std::int64_t end = all * (share + 1) / shares;
    while (i < end) {
      const std::int64_t run = i / lines, row = rows.begin + run / blocks;
      const std::int64_t plane =
          row / p.tile_rows * images.blocks() + channels.begin / kBlock + run % blocks;
      const T* from =
          data + plane * images.plane() + row % p.tile_rows * kTile * images.width * kBlock;
      for (; i < std::min(end, (run + 1) * lines); ++i) {
        const T* line = from + (i - run * lines) * kLine;
        if (written) {
          __builtin_prefetch(line, 1, 3);
        } else {
          __builtin_prefetch(line, 0, 2);
        }
      }
    }
  }
};

// A matrix of `rows` and `columns` for each point. Between them lies a gap, or all points of a tile
// would meet in the same few lines of the cache.
struct PointMatrices {
  float* data;
  std::int64_t rows, columns;

  std::int64_t stride() const { return rows * columns + kBlock; }
  std::int64_t floats() const { return kPoints * stride(); }
  float* operator[](std::int64_t point) const { return data + point * stride(); }
  // From this row of each on.
  PointMatrices from_row(std::int64_t row) const { return {data + row * columns, rows, columns}; }
};

// Where the weights of the rows and columns of U lie: in blocks [3, 3, kBlock rows, kBlock columns]
// with these strides.
struct WeightLayout {
  static constexpr std::int64_t kTap = kBlock * kBlock;  // from a tap to the next
  static constexpr std::int64_t kSize = 9 * kTap;        // of a block
  std::int64_t row_stride, column_stride;

  std::int64_t offset(std::int64_t row, std::int64_t column) const {
    return row / kBlock * row_stride + column / kBlock * column_stride + row % kBlock * kBlock;
  }
};

// A part of U that fits the second-level cache.
struct UBlock {
  std::int64_t row, column;  // the first
  PointMatrices points;
};

// U, or dU: block after block, or, where a thread needs each but once, memory for one of them.
struct UBlocks {
  static constexpr std::int64_t kMostRows = 128, kMostColumns = 64;
  std::int64_t rows, columns;
  bool kept;
  float* data = nullptr;

  std::int64_t down() const { return (rows + kMostRows - 1) / kMostRows; }
  std::int64_t across() const { return (columns + kMostColumns - 1) / kMostColumns; }
  std::int64_t count() const { return down() * across(); }
  std::int64_t block_floats() const {
    return PointMatrices{nullptr, std::min(rows, kMostRows), std::min(columns, kMostColumns)}
        .floats();
  }
  std::int64_t floats() const { return block_floats() * (kept ? count() : 1); }
  // Those of the same columns follow each other.
  UBlock operator[](std::int64_t i) const {
    const std::int64_t row = i % down() * kMostRows, column = i / down() * kMostColumns;
    return {row,
            column,
            {data + (kept ? i * block_floats() : 0), std::min(kMostRows, rows - row),
             std::min(kMostColumns, columns - column)}};
  }
};

}  // namespace concord::cpu

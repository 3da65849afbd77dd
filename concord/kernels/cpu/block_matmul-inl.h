// Products of matrices that fit the second-level cache, on one thread, for kernels that keep their
// blocks there; compiled once for each instruction set, like vector_math-inl.h.
//
// A tile of C is held in registers while a row of B and the elements of A that meet it stream by.
// An element of C is one chain of fused multiply-adds in the order of the inner dim, so its bits do
// not depend on how C is cut into tiles.
#if defined(CONCORD_KERNELS_CPU_BLOCK_MATMUL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CONCORD_KERNELS_CPU_BLOCK_MATMUL_INL_H_
#undef CONCORD_KERNELS_CPU_BLOCK_MATMUL_INL_H_
#else
#define CONCORD_KERNELS_CPU_BLOCK_MATMUL_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {

// The left factor, read element by element: rows may lie anywhere, and transposed.
struct LeftFactor {
  const float* data;
  std::int64_t row_stride, column_stride;
};
// The right factor, its rows contiguous.
struct RightFactor {
  const float* data;
  std::int64_t row_stride;
};
// The product, its rows contiguous.
struct Product {
  float* data;
  std::int64_t row_stride;
};
// C [rows, columns] of A [rows, inner] and B [inner, columns].
struct ProductSizes {
  std::int64_t rows, inner, columns;
};

// Sums of a tile: 24 of the 32 registers that AVX-512 and Arm have, 12 of 16 elsewhere.
inline constexpr int kTileRows = 6;
inline constexpr int kTileVectors = HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3 ? 2 : 4;

template <int kRows, int kVectors>
HWY_INLINE void multiply_tile(LeftFactor a, RightFactor b, Product c, std::int64_t inner,
                              bool accumulate) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  hn::Vec<decltype(d)> sums[kRows][kVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) {
      sums[i][j] = accumulate ? hn::LoadU(d, c.data + i * c.row_stride + j * lanes) : hn::Zero(d);
    }
  }
  for (std::int64_t k = 0; k < inner; ++k) {
    hn::Vec<decltype(d)> row[kVectors];
    for (int j = 0; j < kVectors; ++j) row[j] = hn::LoadU(d, b.data + k * b.row_stride + j * lanes);
    for (int i = 0; i < kRows; ++i) {
      const auto factor = hn::Set(d, a.data[i * a.row_stride + k * a.column_stride]);
      for (int j = 0; j < kVectors; ++j) sums[i][j] = hn::MulAdd(factor, row[j], sums[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) {
      hn::StoreU(sums[i][j], d, c.data + i * c.row_stride + j * lanes);
    }
  }
}

// The last `rows` < kRows rows.
template <int kRows, int kVectors>
HWY_INLINE void multiply_last_rows(LeftFactor a, RightFactor b, Product c, std::int64_t rows,
                                   std::int64_t inner, bool accumulate) {
  if constexpr (kRows > 1) {
    if (rows == kRows - 1) return multiply_tile<kRows - 1, kVectors>(a, b, c, inner, accumulate);
    multiply_last_rows<kRows - 1, kVectors>(a, b, c, rows, inner, accumulate);
  }
}

// Columns of C that are kVectors vectors wide.
template <int kVectors>
HWY_NOINLINE void multiply_columns(LeftFactor a, RightFactor b, Product c, std::int64_t rows,
                                   std::int64_t inner, bool accumulate) {
  for (; rows >= kTileRows; rows -= kTileRows) {
    multiply_tile<kTileRows, kVectors>(a, b, c, inner, accumulate);
    a.data += kTileRows * a.row_stride;
    c.data += kTileRows * c.row_stride;
  }
  multiply_last_rows<kTileRows, kVectors>(a, b, c, rows, inner, accumulate);
}

// C = A B, or C += A B. `sizes.columns` is a multiple of the vectors' lanes.
template <int kVectors = kTileVectors>
void multiply(LeftFactor a, RightFactor b, Product c, ProductSizes sizes, bool accumulate) {
  namespace hn = hwy::HWY_NAMESPACE;
  const auto width = static_cast<std::int64_t>(kVectors * hn::Lanes(hn::ScalableTag<float>()));
  for (; sizes.columns >= width; sizes.columns -= width) {
    multiply_columns<kVectors>(a, b, c, sizes.rows, sizes.inner, accumulate);
    b.data += width;
    c.data += width;
  }
  if constexpr (kVectors > 1) multiply<kVectors / 2>(a, b, c, sizes, accumulate);
}

}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // CONCORD_KERNELS_CPU_BLOCK_MATMUL_INL_H_

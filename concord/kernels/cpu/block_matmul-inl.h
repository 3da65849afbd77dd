// Products of matrices that fit the second-level cache, on one thread, for kernels that keep their
// blocks there; compiled once for each instruction set, like vector_math-inl.h.
//
// A tile of C is held in registers while a row of B and the elements of A that meet it stream by.
// An element of C is one chain of fused multiply-adds in the order of the inner dim, so its bits do
// not depend on how C is cut into tiles.
//
// Factors of bf16 come in pairs along the inner dim (bf16_pair.h); their sums are f32. AVX-512
// takes an instruction for a pair, which the processor must have (instruction_set.h); others two.
#if defined(CONCORD_KERNELS_CPU_BLOCK_MATMUL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CONCORD_KERNELS_CPU_BLOCK_MATMUL_INL_H_
#undef CONCORD_KERNELS_CPU_BLOCK_MATMUL_INL_H_
#else
#define CONCORD_KERNELS_CPU_BLOCK_MATMUL_INL_H_
#endif

#include <hwy/highway.h>

#include "concord/kernels/cpu/bf16_pair-inl.h"

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {

// The left factor, read element by element: rows may lie anywhere, and transposed. F: float or
// BF16Pair.
template <typename F>
struct LeftFactor {
  const F* data;
  std::int64_t row_stride, column_stride;
};
// The right factor, its rows contiguous.
template <typename F>
struct RightFactor {
  const F* data;
  std::int64_t row_stride;
};
// The product, its rows contiguous.
struct Product {
  float* data;
  std::int64_t row_stride;
};
// C [rows, columns] of A [rows, inner] and B [inner, columns]; `inner` counts factors.
struct ProductSizes {
  std::int64_t rows, inner, columns;
};

// Sums of a tile: 24 of the 32 registers that AVX-512 and Arm have, 12 of 16 elsewhere.
inline constexpr int kTileRows = 6;
inline constexpr int kTileVectors = HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3 ? 2 : 4;

template <int kRows, int kVectors, typename F>
HWY_INLINE void multiply_tile(LeftFactor<F> a, RightFactor<F> b, Product c, std::int64_t inner,
                              bool accumulate) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  V sums[kRows][kVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) {
      sums[i][j] = accumulate ? hn::LoadU(d, c.data + i * c.row_stride + j * lanes) : hn::Zero(d);
    }
  }
  for (std::int64_t k = 0; k < inner; ++k) {
    decltype(load_factors(b.data)) row[kVectors];
    for (int j = 0; j < kVectors; ++j) row[j] = load_factors(b.data + k * b.row_stride + j * lanes);
    for (int i = 0; i < kRows; ++i) {
      const auto factor = repeat_factor(a.data + i * a.row_stride + k * a.column_stride);
      for (int j = 0; j < kVectors; ++j) sums[i][j] = add_product(factor, row[j], sums[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) {
      hn::StoreU(sums[i][j], d, c.data + i * c.row_stride + j * lanes);
    }
  }
}

// The last `rows` < kRows rows.
template <int kRows, int kVectors, typename F>
HWY_INLINE void multiply_last_rows(LeftFactor<F> a, RightFactor<F> b, Product c, std::int64_t rows,
                                   std::int64_t inner, bool accumulate) {
  if constexpr (kRows > 1) {
    if (rows == kRows - 1) return multiply_tile<kRows - 1, kVectors>(a, b, c, inner, accumulate);
    multiply_last_rows<kRows - 1, kVectors>(a, b, c, rows, inner, accumulate);
  }
}

// Columns of C that are kVectors vectors wide.
template <int kVectors, typename F>
HWY_NOINLINE void multiply_columns(LeftFactor<F> a, RightFactor<F> b, Product c, std::int64_t rows,
                                   std::int64_t inner, bool accumulate) {
  for (; rows >= kTileRows; rows -= kTileRows) {
    multiply_tile<kTileRows, kVectors>(a, b, c, inner, accumulate);
    a.data += kTileRows * a.row_stride;
    c.data += kTileRows * c.row_stride;
  }
  multiply_last_rows<kTileRows, kVectors>(a, b, c, rows, inner, accumulate);
}

// C = A B, or C += A B. `sizes.columns` is a multiple of the vectors' lanes.
template <int kVectors = kTileVectors, typename F>
void multiply(LeftFactor<F> a, RightFactor<F> b, Product c, ProductSizes sizes, bool accumulate) {
  const auto width = static_cast<std::int64_t>(kVectors * hn::Lanes(D()));
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

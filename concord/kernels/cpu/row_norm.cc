// Layer and RMS normalization of rows. The gradients of the parameters are sums over rows: blocks
// of kBlockRows rows are summed first, then the blocks along a binary tree. Both depend on the
// shape alone, so the bits do not depend on the threads.
#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/row_norm.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/block_sums.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

#ifndef CONCORD_KERNELS_CPU_ROW_NORM_ONCE_
#define CONCORD_KERNELS_CPU_ROW_NORM_ONCE_
namespace concord::cpu {

// Rows of `channels` elements of type T and their statistics. RMSNorm has no beta and no mean:
// null.
template <typename T>
struct NormRows {
  const T* x;
  const float *gamma, *beta;
  T* y;
  float *mean, *reciprocal;
  std::int64_t channels;
};

// dgamma and dbeta (null for RMSNorm) are the sums over the rows that one call is given.
template <typename T>
struct NormRowsBackward {
  const T *dy, *x;
  const float *gamma, *mean, *reciprocal;
  T* dx;
  float *dgamma, *dbeta;
  std::int64_t channels;
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

template <bool kCentered, typename T>
void normalize_row(const NormRows<T>& rows, std::int64_t row, double epsilon) {
  const auto channels = static_cast<std::size_t>(rows.channels);
  const auto count = static_cast<float>(rows.channels);
  const T* x = rows.x + row * rows.channels;
  T* y = rows.y + row * rows.channels;
  float mean = 0;
  if constexpr (kCentered) {
    Sum sum;
    for_each_vector(channels, [&](auto i, auto n, int k) { sum.add(k, load(x + i, n)); });
    rows.mean[row] = mean = sum.total() / count;
  }
  Sum squares;
  for_each_vector(channels, [&](auto i, auto n, int k) {
    const V distance = hn::Sub(load(x + i, n, mean), splat(mean));
    squares.add_product(k, distance, distance);
  });
  const auto reciprocal = static_cast<float>(1.0 / std::sqrt(squares.total() / count + epsilon));
  rows.reciprocal[row] = reciprocal;
  for_each_vector(channels, [&](auto i, auto n, int) {
    const V factor = hn::Mul(splat(reciprocal), load(rows.gamma + i, n));
    const V distance = hn::Sub(load(x + i, n), splat(mean));
    if constexpr (kCentered) {
      store(hn::MulAdd(distance, factor, load(rows.beta + i, n)), y + i, n);
    } else {
      store(hn::Mul(distance, factor), y + i, n);
    }
  });
}

template <typename T>
void normalize_rows(const NormRows<T>& rows, std::int64_t begin, std::int64_t end, double epsilon) {
  for (std::int64_t row = begin; row < end; ++row) {
    rows.mean != nullptr ? normalize_row<true>(rows, row, epsilon)
                         : normalize_row<false>(rows, row, epsilon);
  }
}

void NormalizeRows(const NormRows<float>& rows, std::int64_t begin, std::int64_t end,
                   double epsilon) {
  normalize_rows(rows, begin, end, epsilon);
}
void NormalizeRowsBF16(const NormRows<BF16>& rows, std::int64_t begin, std::int64_t end,
                       double epsilon) {
  normalize_rows(rows, begin, end, epsilon);
}

// One row on its way back: dx = r (g - mean_g - n mean_gn), with g = gamma dy, n = (x - mean) r.
template <typename T>
struct RowBackward {
  const T *dy, *x;
  T* dx;
  float mean, reciprocal, mean_g, mean_gn;

  V normal(std::size_t i, std::size_t n) const {
    return hn::Mul(hn::Sub(load(x + i, n), splat(mean)), splat(reciprocal));
  }
};

template <bool kCentered, typename T>
RowBackward<T> row_backward(const NormRowsBackward<T>& rows, std::int64_t row) {
  const auto channels = static_cast<std::size_t>(rows.channels);
  const std::int64_t at = row * rows.channels;
  RowBackward<T> r{rows.dy + at,
                   rows.x + at,
                   rows.dx + at,
                   kCentered ? rows.mean[row] : 0.0f,
                   rows.reciprocal[row],
                   0,
                   0};
  Sum sum_g, sum_gn;
  for_each_vector(channels, [&](auto i, auto n, int k) {
    const V g = hn::Mul(load(r.dy + i, n), load(rows.gamma + i, n));
    if constexpr (kCentered) sum_g.add(k, g);
    sum_gn.add_product(k, g, r.normal(i, n));
  });
  r.mean_g = sum_g.total() / static_cast<float>(channels);
  r.mean_gn = sum_gn.total() / static_cast<float>(channels);
  return r;
}

// dx of kRows rows, and what they add to dgamma and dbeta.
template <bool kCentered, int kRows, typename T>
void backpropagate_rows(const NormRowsBackward<T>& rows, std::int64_t first) {
  RowBackward<T> row[kRows];
  for (int k = 0; k < kRows; ++k) row[k] = row_backward<kCentered>(rows, first + k);
  for_each_vector(static_cast<std::size_t>(rows.channels), [&](auto i, auto n, int) {
    const V gamma = load(rows.gamma + i, n);
    V dgamma = hn::Zero(D()), dbeta = hn::Zero(D());
    for (const RowBackward<T>& r : row) {
      const V dy = load(r.dy + i, n);
      const V normal = r.normal(i, n);
      dgamma = hn::MulAdd(dy, normal, dgamma);
      dbeta = hn::Add(dbeta, dy);
      const V g = hn::MulSub(dy, gamma, splat(r.mean_g));
      const V dx = hn::NegMulAdd(normal, splat(r.mean_gn), g);
      store(hn::Mul(splat(r.reciprocal), dx), r.dx + i, n);
    }
    store(hn::Add(load(rows.dgamma + i, n), dgamma), rows.dgamma + i, n);
    if constexpr (kCentered) {
      store(hn::Add(load(rows.dbeta + i, n), dbeta), rows.dbeta + i, n);
    }
  });
}

template <bool kCentered, typename T>
void backpropagate_range(const NormRowsBackward<T>& rows, std::int64_t begin, std::int64_t end) {
  std::fill_n(rows.dgamma, rows.channels, 0.0f);
  if (kCentered) std::fill_n(rows.dbeta, rows.channels, 0.0f);
  std::int64_t row = begin;
  for (; row + 4 <= end; row += 4) backpropagate_rows<kCentered, 4>(rows, row);
  for (; row < end; ++row) backpropagate_rows<kCentered, 1>(rows, row);
}

void BackpropagateRows(const NormRowsBackward<float>& rows, std::int64_t begin, std::int64_t end) {
  rows.mean != nullptr ? backpropagate_range<true>(rows, begin, end)
                       : backpropagate_range<false>(rows, begin, end);
}
void BackpropagateRowsBF16(const NormRowsBackward<BF16>& rows, std::int64_t begin,
                           std::int64_t end) {
  rows.mean != nullptr ? backpropagate_range<true>(rows, begin, end)
                       : backpropagate_range<false>(rows, begin, end);
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(NormalizeRows);
HWY_EXPORT(NormalizeRowsBF16);
HWY_EXPORT(BackpropagateRows);
HWY_EXPORT(BackpropagateRowsBF16);

namespace {

constexpr std::int64_t kBlockRows = 64;

struct Extents {
  explicit Extents(const Operand& x)
      : channels(x.type.shape[-1]), rows(x.type.shape.elements() / channels) {}
  std::int64_t channels, rows;
};

// Operands: x, gamma, beta if centered; y, mean if centered, reciprocal.
template <typename T>
class NormalizeRowsKernel final : public Kernel {
 public:
  NormalizeRowsKernel(Extents extents, bool centered, double epsilon)
      : extents_(extents), centered_(centered), epsilon_(epsilon) {}

  void run(std::span<std::byte* const> operands) override {
    const std::size_t outputs = centered_ ? 3 : 2;
    const NormRows<T> rows{as<T>(operands[0]),
                           as<float>(operands[1]),
                           centered_ ? as<float>(operands[2]) : nullptr,
                           as<T>(operands[outputs]),
                           centered_ ? as<float>(operands[4]) : nullptr,
                           as<float>(operands[centered_ ? 5 : 3]),
                           extents_.channels};
    const auto normalize =
        for_type<T>(HWY_DYNAMIC_DISPATCH(NormalizeRows), HWY_DYNAMIC_DISPATCH(NormalizeRowsBF16));
    parallel_for(
        extents_.rows, std::max<std::int64_t>(1, kGrain / extents_.channels),
        [&](std::int64_t begin, std::int64_t end) { normalize(rows, begin, end, epsilon_); });
  }

 private:
  Extents extents_;
  bool centered_;
  double epsilon_;
};

// Operands: dy, x, gamma, mean if centered, reciprocal; dx, dgamma, dbeta if centered; the blocks'
// sums: for each block, dgamma and then, if centered, dbeta.
template <typename T>
class NormalizeRowsBackwardKernel final : public Kernel {
 public:
  NormalizeRowsBackwardKernel(Extents extents, bool centered)
      : extents_(extents),
        centered_(centered),
        sums_(extents.channels * (centered ? 2 : 1)),
        blocks_(std::max<std::int64_t>(1, (extents.rows + kBlockRows - 1) / kBlockRows)) {}

  std::size_t scratchpad_bytes() const override {
    return static_cast<std::size_t>(blocks_ * sums_) * sizeof(float);
  }

  void run(std::span<std::byte* const> operands) override {
    const auto operand = [&](std::size_t i) { return as<float>(operands[i]); };
    const std::size_t outputs = centered_ ? 5 : 4;
    float* sums = operand(outputs + (centered_ ? 3 : 2));
    const NormRowsBackward<T> rows{as<T>(operands[0]),
                                   as<T>(operands[1]),
                                   operand(2),
                                   centered_ ? operand(3) : nullptr,
                                   operand(outputs - 1),
                                   as<T>(operands[outputs]),
                                   nullptr,
                                   nullptr,
                                   extents_.channels};
    parallel_for(blocks_, std::max<std::int64_t>(1, kGrain / (kBlockRows * extents_.channels)),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t block = begin; block < end; ++block) {
                     run_block(rows, block, sums + block * sums_);
                   }
                 });
    sum_blocks(sums, blocks_, sums_);
    std::copy_n(sums, extents_.channels, operand(outputs + 1));
    if (centered_) std::copy_n(sums + extents_.channels, extents_.channels, operand(outputs + 2));
  }

 private:
  void run_block(NormRowsBackward<T> rows, std::int64_t block, float* sums) const {
    rows.dgamma = sums;
    if (centered_) rows.dbeta = sums + extents_.channels;
    const std::int64_t begin = block * kBlockRows;
    const auto backpropagate = for_type<T>(HWY_DYNAMIC_DISPATCH(BackpropagateRows),
                                           HWY_DYNAMIC_DISPATCH(BackpropagateRowsBF16));
    backpropagate(rows, begin, std::min(extents_.rows, begin + kBlockRows));
  }

  Extents extents_;
  bool centered_;
  std::int64_t sums_;  // parameters
  std::int64_t blocks_;
};

template <bool kCentered>
std::unique_ptr<Kernel> make(const Signature& s, KernelPolicy&) {
  return with_float_type(s.inputs[0].type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
    return std::make_unique<NormalizeRowsKernel<decltype(zero)>>(Extents(s.inputs[0]), kCentered,
                                                                 s.node.attributes.real("epsilon"));
  });
}

template <bool kCentered>
std::unique_ptr<Kernel> make_backward(const Signature& s, KernelPolicy&) {
  return with_float_type(s.inputs[1].type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
    return std::make_unique<NormalizeRowsBackwardKernel<decltype(zero)>>(Extents(s.inputs[1]),
                                                                         kCentered);
  });
}

// y may lie over x, and dx over dy or x.
bool in_place(const Signature&, std::size_t o, std::size_t i) { return o == 0 && i == 0; }
bool backward_in_place(const Signature&, std::size_t o, std::size_t i) { return o == 0 && i <= 1; }

const RegisterKernelRule layer_norm{{.op = "layer_norm", .make = make<true>, .in_place = in_place}};
const RegisterKernelRule rms_norm{{.op = "rms_norm", .make = make<false>, .in_place = in_place}};
const RegisterKernelRule layer_norm_backward{
    {.op = "layer_norm_backward", .make = make_backward<true>, .in_place = backward_in_place}};
const RegisterKernelRule rms_norm_backward{
    {.op = "rms_norm_backward", .make = make_backward<false>, .in_place = backward_in_place}};

}  // namespace
}  // namespace concord::cpu
#endif

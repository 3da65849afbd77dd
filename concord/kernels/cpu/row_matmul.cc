#include "concord/kernels/cpu/row_matmul.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/row_matmul.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

// The products of x with kRows rows of w.
template <int kRows>
HWY_INLINE void multiply(const float* x, const float* w, std::size_t inner, float* y) {
  const std::size_t lanes = hn::Lanes(D());
  V sums[kRows];
  for (V& sum : sums) sum = hn::Zero(D());
  for (std::size_t i = 0; i < inner; i += lanes) {
    const std::size_t count = std::min(lanes, inner - i);
    const V factor = load(x + i, count);
    for (int r = 0; r < kRows; ++r) {
      sums[r] =
          hn::MulAdd(factor, load(w + static_cast<std::size_t>(r) * inner + i, count), sums[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) y[r] = hn::GetLane(hn::SumOfLanes(D(), sums[r]));
}

void RowMatmul(const float* x, const float* w, const float* bias, float* y, std::size_t rows,
               std::size_t inner) {
  constexpr std::size_t kRows = 4;  // sums that do not wait for each other
  std::size_t i = 0;
  for (; i + kRows <= rows; i += kRows) multiply<kRows>(x, w + i * inner, inner, y + i);
  for (; i < rows; ++i) multiply<1>(x, w + i * inner, inner, y + i);
  for (i = 0; bias != nullptr && i < rows; ++i) y[i] += bias[i];
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(RowMatmul);

namespace {

// Operands: x, w, the bias if there is one, y.
class RowMatmulKernel final : public Kernel {
 public:
  RowMatmulKernel(const Shape& w, bool has_bias) : rows_(w[0]), inner_(w[1]), has_bias_(has_bias) {}

  void run(std::span<std::byte* const> operands) override {
    const auto multiply = HWY_DYNAMIC_DISPATCH(RowMatmul);
    const float* bias = has_bias_ ? as<float>(operands[2]) : nullptr;
    parallel_for(rows_, std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, inner_)),
                 [&](std::int64_t begin, std::int64_t end) {
                   multiply(as<float>(operands[0]), as<float>(operands[1]) + begin * inner_,
                            has_bias_ ? bias + begin : nullptr, as<float>(operands.back()) + begin,
                            static_cast<std::size_t>(end - begin),
                            static_cast<std::size_t>(inner_));
                 });
  }

 private:
  std::int64_t rows_, inner_;
  bool has_bias_;
};

}  // namespace

bool is_row_matmul(const Signature& s) {
  const Shape &x = s.inputs[0].type.shape, &w = s.inputs[1].type.shape;
  const Attributes& attributes = s.node.attributes;
  return x.rank() == 2 && x[0] == 1 && w.rank() == 2 && attributes.integer("transpose_a") == 0 &&
         attributes.integer("transpose_b") != 0 &&
         std::ranges::all_of(s.inputs,
                             [](const Operand& o) { return o.type.dtype == DType::kF32; });
}

std::unique_ptr<Kernel> make_row_matmul(const Signature& s) {
  return std::make_unique<RowMatmulKernel>(s.inputs[1].type.shape, s.inputs.size() == 3);
}

}  // namespace concord::cpu
#endif

#include <algorithm>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/elementwise.h"
#include "concord/kernels/cpu/loops.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"

namespace concord::cpu {
namespace {

// y = f(a, b) with broadcasting. Operands of one shape, and a single element against a whole
// tensor, merge into one loop over memory, which fits any layout.
template <typename T>
class Broadcasting final : public Kernel {
 public:
  Broadcasting(BinaryFunction f, Loops<2> loops, std::int64_t elements)
      : f_(f), loops_(std::move(loops)), elements_(elements) {}

  void run(std::span<std::byte* const> operands) override {
    parallel_for(elements_, kGrain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t inner = loops_.inner();
      while (begin < end) {
        const std::int64_t row = begin / inner, column = begin % inner;
        const std::int64_t count = std::min(end - begin, inner - column);
        const auto [a, b] = loops_.row_offsets(row);
        apply(f_, run_of(0, operands[0], a, column), run_of(1, operands[1], b, column),
              as<T>(operands[2]) + begin, count);
        begin += count;
      }
    });
  }

 private:
  Run<T> run_of(std::size_t operand, std::byte* data, std::int64_t offset,
                std::int64_t column) const {
    const T* at = as<T>(data) + offset;
    if (loops_.inner_stride(operand) == 0) return {nullptr, static_cast<float>(*at)};
    return {at + column};
  }

  BinaryFunction f_;
  Loops<2> loops_;
  std::int64_t elements_;
};

bool is_flat(const Signature& s) {
  const Shape& shape = s.outputs[0].type.shape;
  for (const Operand& input : s.inputs) {
    if (input.type.shape != shape && input.type.shape.elements() != 1) return false;
  }
  return true;
}

template <BinaryFunction f>
std::unique_ptr<Kernel> make(const Signature& s, KernelPolicy&) {
  const Shape& shape = s.outputs[0].type.shape;
  const std::int64_t elements = stored_elements(s.outputs[0]);
  Loops<2> loops;
  if (is_flat(s)) {
    loops.extents = {elements};
    for (std::size_t i = 0; i < 2; ++i) {
      loops.strides[i] = {s.inputs[i].type.shape == shape ? 1 : 0};
    }
  } else {
    loops.extents = shape.dims();
    for (std::size_t i = 0; i < 2; ++i) {
      loops.strides[i] = broadcast_strides(s.inputs[i].type.shape, shape);
    }
    loops = merged(loops);
  }
  return with_float_type(s.outputs[0].type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
    return std::make_unique<Broadcasting<decltype(zero)>>(f, std::move(loops), elements);
  });
}

// The layout of the first operand of the output's shape, where memory can be walked flat and
// padding stays zero; else row-major. 0 + 0, 0 - 0 and 0 * s are 0.
template <BinaryFunction f>
LayoutWish layouts(const Signature& s, std::span<const std::optional<Layout>> inputs,
                   KernelPolicy& policy) {
  const Shape& shape = s.outputs[0].type.shape;
  const bool one_shape = s.inputs[0].type.shape == s.inputs[1].type.shape;
  const bool keeps_zero = f == BinaryFunction::kMul ||
                          (one_shape && (f == BinaryFunction::kAdd || f == BinaryFunction::kSub));
  LayoutWish wish =
      keeps_zero ? same_layout(s, inputs, policy) : same_layout_unpadded(s, inputs, policy);
  if (!is_flat(s)) return {std::vector<Layout>(2), std::vector<Layout>(1)};
  for (std::size_t i = 0; i < 2; ++i) {
    if (s.inputs[i].type.shape != shape) wish.inputs[i] = Layout();
  }
  return wish;
}

template <BinaryFunction f>
KernelRule rule(const char* op) {
  return {.op = op, .layouts = layouts<f>, .make = make<f>, .in_place = element_wise_in_place};
}

const RegisterKernelRule add{rule<BinaryFunction::kAdd>("add")};
const RegisterKernelRule sub{rule<BinaryFunction::kSub>("sub")};
const RegisterKernelRule mul{rule<BinaryFunction::kMul>("mul")};
const RegisterKernelRule div{rule<BinaryFunction::kDiv>("div")};
const RegisterKernelRule equal{rule<BinaryFunction::kEqual>("equal")};

template <typename T>
class Scale final : public Kernel {
 public:
  Scale(float factor, std::int64_t elements) : factor_(factor), elements_(elements) {}
  void run(std::span<std::byte* const> operands) override {
    parallel_for(elements_, kGrain, [&](std::int64_t begin, std::int64_t end) {
      apply(BinaryFunction::kMul, {as<T>(operands[0]) + begin}, {nullptr, factor_},
            as<T>(operands[1]) + begin, end - begin);
    });
  }

 private:
  float factor_;
  std::int64_t elements_;
};

const RegisterKernelRule scale{{
    .op = "scale",
    .layouts = same_layout,
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return with_float_type(s.outputs[0].type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
        return std::make_unique<Scale<decltype(zero)>>(
            static_cast<float>(s.node.attributes.real("factor")), stored_elements(s.outputs[0]));
      });
    },
    .in_place = element_wise_in_place,
}};

template <typename T>
class Clamp final : public Kernel {
 public:
  Clamp(float low, float high, std::int64_t elements)
      : low_(low), high_(high), elements_(elements) {}
  void run(std::span<std::byte* const> operands) override {
    const T* x = as<T>(operands[0]);
    T* y = as<T>(operands[1]);
    const auto clamp = [=, this](std::int64_t begin, std::int64_t count) {
      apply(BinaryFunction::kMax, {x + begin}, {nullptr, low_}, y + begin, count);
      apply(BinaryFunction::kMin, {y + begin}, {nullptr, high_}, y + begin, count);
    };
    parallel_for(elements_, kGrain, [&](std::int64_t begin, std::int64_t end) {
      for (; begin < end; begin += kPiece) clamp(begin, std::min(kPiece, end - begin));
    });
  }

 private:
  static constexpr std::int64_t kPiece = 2048;  // elements that stay in the first-level cache

  float low_, high_;
  std::int64_t elements_;
};

const RegisterKernelRule clamp{{
    .op = "clamp",
    .layouts = same_layout_unpadded,  // 0 may be outside
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const auto low = static_cast<float>(s.node.attributes.real("low"));
      const auto high = static_cast<float>(s.node.attributes.real("high"));
      return with_float_type(s.outputs[0].type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
        return std::make_unique<Clamp<decltype(zero)>>(low, high, stored_elements(s.outputs[0]));
      });
    },
    .in_place = element_wise_in_place,
}};

}  // namespace
}  // namespace concord::cpu

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/gradient_norm.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/update.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

double SumOfSquares(const float* x, std::size_t count) { return sum_of_squares(x, count); }

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(SumOfSquares);

namespace {

// Sums of chunks whose places do not depend on the threads, in double, added up in order.
class SumOfSquaresKernel final : public Kernel {
 public:
  explicit SumOfSquaresKernel(Sequence values) : values_(std::move(values)) {}
  std::size_t scratchpad_bytes() const override {
    return static_cast<std::size_t>(chunks()) * sizeof(double);
  }
  void run(std::span<std::byte* const> operands) override {
    double* sums = chunks() > 0 ? as<double>(operands[values_.tensors() + 1]) : nullptr;
    parallel_for(chunks(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t chunk = begin; chunk < end; ++chunk) {
        sums[chunk] = 0;
        values_.for_each_piece(chunk * kGrain, std::min((chunk + 1) * kGrain, values_.total()),
                               [&](std::size_t tensor, std::int64_t from, std::int64_t to) {
                                 sums[chunk] += HWY_DYNAMIC_DISPATCH(SumOfSquares)(
                                     as<float>(operands[tensor]) + from,
                                     static_cast<std::size_t>(to - from));
                               });
      }
    });
    double sum = 0;
    for (std::int64_t chunk = 0; chunk < chunks(); ++chunk) sum += sums[chunk];
    *as<double>(operands[values_.tensors()]) = sum;
  }

 private:
  std::int64_t chunks() const { return (values_.total() + kGrain - 1) / kGrain; }

  Sequence values_;
};

const RegisterKernelRule sum_of_squares{{
    .op = "sum_of_squares",
    // Padding adds zeros, so any layout will do.
    .layouts = [](const Signature& s, std::span<const std::optional<Layout>> inputs,
                  KernelPolicy&) -> LayoutWish {
      LayoutWish wish{std::vector<Layout>(s.inputs.size()), std::vector<Layout>(1)};
      for (std::size_t i = 0; i < inputs.size(); ++i) wish.inputs[i] = inputs[i].value_or(Layout());
      return wish;
    },
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<SumOfSquaresKernel>(Sequence(s.inputs, Share()));
    },
}};

class AddAll final : public Kernel {
 public:
  explicit AddAll(std::size_t count) : count_(count) {}
  void run(std::span<std::byte* const> operands) override {
    double sum = 0;
    for (std::size_t i = 0; i < count_; ++i) sum += *as<double>(operands[i]);
    *as<double>(operands[count_]) = sum;
  }

 private:
  std::size_t count_;
};

const RegisterKernelRule add_all{{
    .op = "add_all",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<AddAll>(s.inputs.size());
    },
}};

class ClipFactor final : public Kernel {
 public:
  explicit ClipFactor(double max_norm) : max_norm_(max_norm) {}
  void run(std::span<std::byte* const> operands) override {
    const double norm = std::sqrt(*as<double>(operands[0]));
    const double factor = max_norm_ / (norm + 1e-6);
    *as<float>(operands[1]) = static_cast<float>(factor > 1 ? 1 : factor);
  }

 private:
  double max_norm_;
};

const RegisterKernelRule clip_factor{{
    .op = "clip_factor",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<ClipFactor>(s.node.attributes.real("max_norm"));
    },
}};

}  // namespace
}  // namespace concord::cpu
#endif

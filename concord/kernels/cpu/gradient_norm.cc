#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/gradient_norm.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/exact_sum.h"
#include "concord/base/parallel.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
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

// Runs of numbers are summed in double, in an order that the run's length alone decides, and these
// sums exactly: neither threads nor parts of ranks change the result. One sum of all tensors, or
// one of each, `apart`.
class Squares {
 public:
  explicit Squares(const Signature& s) : apart_(s.node.attributes.has("apart")) {
    const bool has_numbers = s.node.attributes.has("numbers");
    for (std::size_t i = 0; i < s.inputs.size(); ++i) {
      const std::int64_t numbers =
          has_numbers ? s.node.attributes.integers("numbers")[i] : stored_elements(s.inputs[i]);
      tensors_.push_back({numbers, chunks_});
      chunks_ += (numbers + kGrain - 1) / kGrain;
    }
  }
  std::size_t tensors() const { return tensors_.size(); }
  std::size_t scratchpad_bytes() const {
    return static_cast<std::size_t>(chunks_) * sizeof(ExactSum);
  }
  std::size_t sums() const { return apart_ ? tensors_.size() : 1; }
  // Calls f(which, sum).
  template <typename F>
  void for_each_sum(std::span<std::byte* const> values, std::byte* scratchpad, F f) const {
    auto* const sums = reinterpret_cast<ExactSum*>(scratchpad);
    parallel_for(chunks_, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t chunk = begin; chunk < end; ++chunk) {
        std::size_t tensor = tensors_.size() - 1;
        while (tensors_[tensor].first_chunk > chunk) --tensor;
        const std::int64_t first = (chunk - tensors_[tensor].first_chunk) * kGrain;
        const std::int64_t last = std::min(first + kGrain, tensors_[tensor].elements);
        sums[chunk] = sum_of_runs(as<float>(values[tensor]), first, last);
      }
    });
    std::int64_t chunk = 0;
    for (std::size_t which = 0; which < this->sums(); ++which) {
      const bool is_last = which + 1 == this->sums();
      const std::int64_t end = is_last ? chunks_ : tensors_[which + 1].first_chunk;
      ExactSum all;
      for (; chunk < end; ++chunk) all.add(sums[chunk].digits());
      f(which, all);
    }
  }

 private:
  static_assert(kGrain % kFlatRun == 0);
  struct Tensor {
    std::int64_t elements, first_chunk;
  };

  static ExactSum sum_of_runs(const float* values, std::int64_t first, std::int64_t last) {
    ExactSum sum;
    for (std::int64_t run = first; run < last; run += kFlatRun) {
      sum.add(HWY_DYNAMIC_DISPATCH(SumOfSquares)(
          values + run, static_cast<std::size_t>(std::min(kFlatRun, last - run))));
    }
    return sum;
  }

  std::vector<Tensor> tensors_;
  std::int64_t chunks_ = 0;
  bool apart_;
};

template <bool rounds>
class SumOfSquaresKernel final : public Kernel {
 public:
  explicit SumOfSquaresKernel(Squares squares) : squares_(std::move(squares)) {}
  std::size_t scratchpad_bytes() const override { return squares_.scratchpad_bytes(); }
  void run(std::span<std::byte* const> operands) override {
    std::byte* const out = operands[squares_.tensors()];
    squares_.for_each_sum(operands, operands.back(), [&](std::size_t which, const ExactSum& sum) {
      if constexpr (rounds) {
        as<double>(out)[which] = sum.rounded();
      } else {
        constexpr std::size_t kBytes = sizeof(ExactSum::Digits);
        std::memcpy(out + which * kBytes, sum.digits().data(), kBytes);
      }
    });
  }

 private:
  Squares squares_;
};

// Padding adds zeros, so any layout will do.
template <bool rounds>
KernelRule sum_of_squares_rule(std::string op) {
  return {
      .op = std::move(op),
      .layouts = [](const Signature& s, std::span<const std::optional<Layout>> inputs,
                    KernelPolicy&) -> LayoutWish {
        LayoutWish wish{std::vector<Layout>(s.inputs.size()), std::vector<Layout>(1)};
        for (std::size_t i = 0; i < inputs.size(); ++i) {
          wish.inputs[i] = inputs[i].value_or(Layout());
        }
        return wish;
      },
      .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
        return std::make_unique<SumOfSquaresKernel<rounds>>(Squares(s));
      },
  };
}

const RegisterKernelRule sum_of_squares{sum_of_squares_rule<true>("sum_of_squares")};
const RegisterKernelRule exact_sum_of_squares{sum_of_squares_rule<false>("exact_sum_of_squares")};

class RoundedSum final : public Kernel {
 public:
  RoundedSum(std::size_t count, std::size_t sums) : count_(count), sums_(sums) {}
  void run(std::span<std::byte* const> operands) override {
    constexpr auto kDigits = static_cast<std::size_t>(ExactSum::kDigits);
    for (std::size_t s = 0; s < sums_; ++s) {
      ExactSum sum;
      for (std::size_t i = 0; i < count_; ++i) {
        const std::int64_t* const digits = as<std::int64_t>(operands[i]) + s * kDigits;
        sum.add(std::span<const std::int64_t, ExactSum::kDigits>(digits, kDigits));
      }
      as<double>(operands[count_])[s] = sum.rounded();
    }
  }

 private:
  std::size_t count_, sums_;
};

const RegisterKernelRule rounded_sum{{
    .op = "rounded_sum",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const auto sums = static_cast<std::size_t>(s.outputs[0].type.shape.elements());
      return std::make_unique<RoundedSum>(s.inputs.size(), sums);
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

class TrustRatio final : public Kernel {
 public:
  explicit TrustRatio(const Attributes& attributes)
      : coefficient_(attributes.real("coefficient")),
        weight_decay_(attributes.real("weight_decay")) {}
  void run(std::span<std::byte* const> operands) override {
    const double* const sums = as<double>(operands[0]);
    const double parameter = std::sqrt(sums[0]);
    const double step = std::abs(*as<float>(operands[1])) * std::sqrt(sums[1]);
    const double ratio = coefficient_ * parameter / (step + weight_decay_ * parameter);
    *as<float>(operands[2]) = static_cast<float>(parameter == 0 || step == 0 ? 1 : ratio);
  }

 private:
  double coefficient_, weight_decay_;
};

const RegisterKernelRule trust_ratio{{
    .op = "trust_ratio",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<TrustRatio>(s.node.attributes);
    },
}};

const RegisterKernelRule clip_factor{{
    .op = "clip_factor",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<ClipFactor>(s.node.attributes.real("max_norm"));
    },
}};

}  // namespace
}  // namespace concord::cpu
#endif

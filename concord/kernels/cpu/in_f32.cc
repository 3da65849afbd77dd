#include "concord/kernels/cpu/in_f32.h"

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/elementwise.h"
#include "concord/kernels/cpu/operands.h"

namespace concord::cpu {
namespace {

template <typename From, typename To>
void convert_all(std::byte* from, std::byte* to, std::int64_t elements) {
  parallel_for(elements, kGrain, [=](std::int64_t begin, std::int64_t end) {
    convert(as<From>(from) + begin, as<To>(to) + begin, end - begin);
  });
}

// The scratchpad holds the copies in f32, then what the kernel wants.
class InF32 final : public Kernel {
 public:
  InF32(const Signature& signature, std::unique_ptr<Kernel> kernel)
      : kernel_(std::move(kernel)), inputs_(signature.inputs.size()) {
    for (const auto* operands : {&signature.inputs, &signature.outputs}) {
      for (const Operand& operand : *operands) {
        const bool is_copied = operand.type.dtype == DType::kBF16;
        elements_.push_back(is_copied ? stored_elements(operand) : 0);
        copies_bytes_ += copy_bytes(elements_.back());
      }
    }
    pointers_.resize(elements_.size() + (kernel_->scratchpad_bytes() > 0 ? 1 : 0));
  }

  std::size_t scratchpad_bytes() const override {
    return copies_bytes_ + kernel_->scratchpad_bytes();
  }

  void run(std::span<std::byte* const> operands) override {
    std::byte* scratchpad = operands[elements_.size()];
    for (std::size_t i = 0; i < elements_.size(); ++i) {
      pointers_[i] = elements_[i] > 0 ? scratchpad : operands[i];
      scratchpad += copy_bytes(elements_[i]);
    }
    if (pointers_.size() > elements_.size()) pointers_.back() = scratchpad;
    for (std::size_t i = 0; i < inputs_; ++i) {
      convert_all<BF16, float>(operands[i], pointers_[i], elements_[i]);
    }
    kernel_->run(pointers_);
    for (std::size_t i = inputs_; i < elements_.size(); ++i) {
      convert_all<float, BF16>(pointers_[i], operands[i], elements_[i]);
    }
  }

 private:
  static std::size_t copy_bytes(std::int64_t elements) {
    return aligned(static_cast<std::size_t>(elements) * sizeof(float));
  }

  std::unique_ptr<Kernel> kernel_;
  std::size_t inputs_;
  std::vector<std::int64_t> elements_;  // of each operand that is copied, else 0
  std::size_t copies_bytes_ = 0;
  std::vector<std::byte*> pointers_;  // for the kernel
};

}  // namespace

Signature in_f32(Signature signature) {
  for (auto* operands : {&signature.inputs, &signature.outputs}) {
    for (Operand& operand : *operands) {
      if (operand.type.dtype == DType::kBF16) operand.type.dtype = DType::kF32;
    }
  }
  return signature;
}

std::unique_ptr<Kernel> run_in_f32(const Signature& signature, std::unique_ptr<Kernel> kernel) {
  return std::make_unique<InF32>(signature, std::move(kernel));
}

}  // namespace concord::cpu

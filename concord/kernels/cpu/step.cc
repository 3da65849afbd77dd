#include <algorithm>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"

namespace concord::cpu {
namespace {

template <typename T>
class Constant final : public Kernel {
 public:
  Constant(T value, std::int64_t elements) : value_(value), elements_(elements) {}
  void run(std::span<std::byte* const> operands) override {
    parallel_for(elements_, kGrain, [&](std::int64_t begin, std::int64_t end) {
      std::fill(as<T>(operands[0]) + begin, as<T>(operands[0]) + end, value_);
    });
  }

 private:
  T value_;
  std::int64_t elements_;
};

const RegisterKernelRule constant{{
    .op = "constant",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const double value = s.node.attributes.real("value");
      const std::int64_t elements = stored_elements(s.outputs[0]);
      switch (s.outputs[0].type.dtype) {
        case DType::kF32:
          return std::make_unique<Constant<float>>(static_cast<float>(value), elements);
        case DType::kF64:
          return std::make_unique<Constant<double>>(value, elements);
        case DType::kBF16:
          return std::make_unique<Constant<BF16>>(BF16(static_cast<float>(value)), elements);
        case DType::kI32:
          return std::make_unique<Constant<std::int32_t>>(static_cast<std::int32_t>(value),
                                                          elements);
        case DType::kI64:
          return std::make_unique<Constant<std::int64_t>>(static_cast<std::int64_t>(value),
                                                          elements);
        case DType::kU8:
          return std::make_unique<Constant<std::uint8_t>>(static_cast<std::uint8_t>(value),
                                                          elements);
      }
      fail("constant: unknown element type");
    },
}};

// Of a single leaf; an all_reduce behind it adds those of other ranks.
class LeafTotal final : public Kernel {
 public:
  explicit LeafTotal(std::size_t bytes) : bytes_(bytes) {}
  void run(std::span<std::byte* const> operands) override {
    std::copy_n(operands[0], bytes_, operands[1]);
  }

 private:
  std::size_t bytes_;
};

const RegisterKernelRule leaf_total{{
    .op = "leaf_total",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<LeafTotal>(s.outputs[0].type.bytes());
    },
    .view = true,
}};

}  // namespace
}  // namespace concord::cpu

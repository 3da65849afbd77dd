#include <algorithm>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/registry.h"

namespace concord::cpu {
namespace {

class Relu final : public Kernel {
 public:
  explicit Relu(std::int64_t elements) : elements_(elements) {}
  void run(std::span<std::byte* const> operands) override {
    const auto* x = reinterpret_cast<const float*>(operands[0]);
    auto* y = reinterpret_cast<float*>(operands[1]);
    parallel_for(elements_, 1 << 14, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) y[i] = std::max(x[i], 0.0f);
    });
  }

 private:
  std::int64_t elements_;
};

const RegisterKernelRule relu{{
    .op = "relu",
    .layouts = same_layout,
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<Relu>(s.outputs[0].layout.stored_elements(s.outputs[0].type.shape));
    },
    .in_place = element_wise_in_place,
}};

}  // namespace
}  // namespace concord::cpu

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/elementwise.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"

namespace concord::cpu {
namespace {

template <typename T>
class Activation final : public Kernel {
 public:
  Activation(UnaryFunction f, std::int64_t elements) : f_(f), elements_(elements) {}
  void run(std::span<std::byte* const> operands) override {
    parallel_for(elements_, kGrain, [&](std::int64_t begin, std::int64_t end) {
      apply(f_, as<T>(operands[0]) + begin, as<T>(operands[1]) + begin, end - begin);
    });
  }

 private:
  UnaryFunction f_;
  std::int64_t elements_;
};

template <typename T>
class ActivationBackward final : public Kernel {
 public:
  ActivationBackward(BinaryFunction f, std::int64_t elements) : f_(f), elements_(elements) {}
  void run(std::span<std::byte* const> operands) override {
    parallel_for(elements_, kGrain, [&](std::int64_t begin, std::int64_t end) {
      apply(f_, {as<T>(operands[0]) + begin}, {as<T>(operands[1]) + begin},
            as<T>(operands[2]) + begin, end - begin);
    });
  }

 private:
  BinaryFunction f_;
  std::int64_t elements_;
};

template <UnaryFunction f>
std::unique_ptr<Kernel> make(const Signature& s, KernelPolicy&) {
  return with_float_type(s.outputs[0].type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
    return std::make_unique<Activation<decltype(zero)>>(f, stored_elements(s.outputs[0]));
  });
}

template <BinaryFunction f>
std::unique_ptr<Kernel> make_backward(const Signature& s, KernelPolicy&) {
  return with_float_type(s.outputs[0].type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
    return std::make_unique<ActivationBackward<decltype(zero)>>(f, stored_elements(s.outputs[0]));
  });
}

std::unique_ptr<Kernel> make_gelu(const Signature& s, KernelPolicy& policy) {
  return s.node.attributes.integer("tanh") != 0 ? make<UnaryFunction::kGeluTanh>(s, policy)
                                                : make<UnaryFunction::kGeluExact>(s, policy);
}

std::unique_ptr<Kernel> make_gelu_backward(const Signature& s, KernelPolicy& policy) {
  return s.node.attributes.integer("tanh") != 0
             ? make_backward<BinaryFunction::kGeluTanhBackward>(s, policy)
             : make_backward<BinaryFunction::kGeluExactBackward>(s, policy);
}

// Functions with f(0) = 0 keep zeros in padding zero, and so do all backward functions, where dL/dy
// is zero. The sigmoid and e^x would fill it.
using Make = std::unique_ptr<Kernel> (*)(const Signature&, KernelPolicy&);
KernelRule keeps_zero(const char* op, Make make) {
  return {.op = op, .layouts = same_layout, .make = make, .in_place = element_wise_in_place};
}
KernelRule moves_zero(const char* op, Make make) {
  return {
      .op = op, .layouts = same_layout_unpadded, .make = make, .in_place = element_wise_in_place};
}

const RegisterKernelRule relu{keeps_zero("relu", make<UnaryFunction::kRelu>)};
const RegisterKernelRule relu_backward{
    keeps_zero("relu_backward", make_backward<BinaryFunction::kReluBackward>)};
const RegisterKernelRule sigmoid{moves_zero("sigmoid", make<UnaryFunction::kSigmoid>)};
const RegisterKernelRule sigmoid_backward{
    keeps_zero("sigmoid_backward", make_backward<BinaryFunction::kSigmoidBackward>)};
const RegisterKernelRule tanh{keeps_zero("tanh", make<UnaryFunction::kTanh>)};
const RegisterKernelRule tanh_backward{
    keeps_zero("tanh_backward", make_backward<BinaryFunction::kTanhBackward>)};
const RegisterKernelRule silu{keeps_zero("silu", make<UnaryFunction::kSilu>)};
const RegisterKernelRule silu_backward{
    keeps_zero("silu_backward", make_backward<BinaryFunction::kSiluBackward>)};
const RegisterKernelRule gelu{keeps_zero("gelu", make_gelu)};
const RegisterKernelRule gelu_backward{keeps_zero("gelu_backward", make_gelu_backward)};

const RegisterKernelRule abs{keeps_zero("abs", make<UnaryFunction::kAbs>)};
const RegisterKernelRule abs_backward{
    keeps_zero("abs_backward", make_backward<BinaryFunction::kAbsBackward>)};
const RegisterKernelRule binary_cross_entropy{moves_zero(
    "binary_cross_entropy_with_logits", make_backward<BinaryFunction::kBinaryCrossEntropy>)};

const RegisterKernelRule neg{keeps_zero("neg", make<UnaryFunction::kNeg>)};
const RegisterKernelRule exp{moves_zero("exp", make<UnaryFunction::kExp>)};
const RegisterKernelRule log{moves_zero("log", make<UnaryFunction::kLog>)};
const RegisterKernelRule sqrt{keeps_zero("sqrt", make<UnaryFunction::kSqrt>)};
const RegisterKernelRule square{keeps_zero("square", make<UnaryFunction::kSquare>)};

}  // namespace
}  // namespace concord::cpu

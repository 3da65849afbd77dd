#include "concord/ops/activation.h"

#include <gtest/gtest.h>

#include <limits>

#include "concord/kernels/cpu/check_layouts.h"
#include "concord/kernels/kernel_check.h"

namespace concord::cpu {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

using Function = std::function<ValueId(GraphBuilder&, ValueId)>;

const std::vector<std::pair<std::string, Function>> kFunctions = {
    {"relu", ops::relu},
    {"sigmoid", ops::sigmoid},
    {"tanh", ops::tanh},
    {"silu", ops::silu},
    {"gelu exact", [](GraphBuilder& b, ValueId x) { return ops::gelu(b, x); }},
    {"gelu tanh", [](GraphBuilder& b, ValueId x) { return ops::gelu(b, x, ops::GeluForm::kTanh); }},
};

KernelCheck check_of(const Function& function, const Shape& shape) {
  return {.inputs = {{DType::kF32, shape}},
          .build = [=](GraphBuilder& b, const std::vector<ValueId>& x) { function(b, x[0]); },
          .tolerance = 3e-6,
          .any_threads = true};
}

TEST(CpuKernel, ActivationsInEveryLayout) {
  for (const auto& [name, function] : kFunctions) {
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{3, 50}, Shape{20001}}) {
      EXPECT_EQ("", check_kernels(check_of(function, shape))) << name;
    }
    for (const auto layout : {channels_last, channel_tiles}) {
      const Shape shape = {2, 5, 3, 7};
      KernelCheck check = check_of(function, shape);
      check.offered = layout(shape);
      EXPECT_EQ("", check_kernels(check)) << name;
    }
  }
}

TEST(CpuKernel, ActivationsFarFromZeroAndPropagationOfNaN) {
  for (const auto& [name, function] : kFunctions) {
    KernelCheck check = check_of(function, {8});
    check.backward = false;
    check.fixed["x0"] = ref::Array({8}, {-1000, -90, -20, -6, 6, 20, 90, kNaN});
    EXPECT_EQ("", check_kernels(check)) << name;
  }
  for (const Function& function :
       {Function(ops::relu), Function(ops::tanh), Function(ops::sigmoid)}) {
    KernelCheck check = check_of(function, {2});
    check.backward = false;
    check.fixed["x0"] = ref::Array({2}, {-kInfinity, kInfinity});
    EXPECT_EQ("", check_kernels(check));
  }
}

}  // namespace
}  // namespace concord::cpu

#include <type_traits>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/elementwise.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"

namespace concord::cpu {
namespace {

template <typename To, typename From>
To converted(From value) {
  if constexpr (std::is_same_v<From, BF16>) {
    return converted<To>(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, BF16>) {
    return BF16(static_cast<float>(value));
  } else {
    return static_cast<To>(value);
  }
}

template <typename From, typename To>
class Cast final : public Kernel {
 public:
  explicit Cast(std::int64_t elements) : elements_(elements) {}
  void run(std::span<std::byte* const> operands) override {
    const From* x = as<From>(operands[0]);
    To* y = as<To>(operands[1]);
    parallel_for(elements_, kGrain, [=](std::int64_t begin, std::int64_t end) {
      if constexpr (requires { convert(x, y, end); }) {
        convert(x + begin, y + begin, end - begin);
      } else {
        for (std::int64_t i = begin; i < end; ++i) y[i] = converted<To>(x[i]);
      }
    });
  }

 private:
  std::int64_t elements_;
};

// f(T()) with the C++ type that holds elements of `dtype`.
template <typename F>
std::unique_ptr<Kernel> with_type(DType dtype, F f) {
  switch (dtype) {
    case DType::kF32:
      return f(float());
    case DType::kF64:
      return f(double());
    case DType::kBF16:
      return f(BF16());
    case DType::kI32:
      return f(std::int32_t());
    case DType::kI64:
      return f(std::int64_t());
    case DType::kU8:
      return f(std::uint8_t());
  }
  fail("cast: unknown element type");
}

const RegisterKernelRule cast{{
    .op = "cast",
    .layouts = same_layout,
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const std::int64_t elements = stored_elements(s.outputs[0]);
      return with_type(s.inputs[0].type.dtype, [&](auto from) {
        return with_type(s.outputs[0].type.dtype, [&](auto to) -> std::unique_ptr<Kernel> {
          return std::make_unique<Cast<decltype(from), decltype(to)>>(elements);
        });
      });
    },
}};

}  // namespace
}  // namespace concord::cpu

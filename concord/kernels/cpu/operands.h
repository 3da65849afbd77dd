// Small helpers that the CPU kernels share.
#pragma once

#include <type_traits>

#include "concord/base/error.h"
#include "concord/kernels/kernel.h"

namespace concord::cpu {

// Elements per piece of work below which another thread costs more than it saves.
inline constexpr std::int64_t kGrain = 1 << 14;

template <typename T>
T* as(std::byte* operand) {
  return reinterpret_cast<T*>(operand);
}

// Rounded up to whole cache lines.
inline std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Elements of memory that an operand occupies.
inline std::int64_t stored_elements(const Operand& operand) {
  return operand.layout.stored_elements(operand.type.shape);
}

// f(T()) with the type that holds elements of `dtype`: float or BF16. Throws Error for others.
template <typename F>
std::unique_ptr<Kernel> with_float_type(DType dtype, F f) {
  if (dtype == DType::kF32) return f(float());
  if (dtype == DType::kBF16) return f(BF16());
  fail("runs on the CPU in f32 and bf16 only, given {}", to_string(dtype));
}

// The one of two functions that works on elements of type T: float or BF16.
template <typename T, typename OfFloat, typename OfBF16>
auto for_type(OfFloat of_float, OfBF16 of_bf16) {
  if constexpr (std::is_same_v<T, float>) {
    return of_float;
  } else {
    return of_bf16;
  }
}

// Throws Error where a floating operand is not f32.
inline void expect_f32(const Signature& signature) {
  for (const auto* operands : {&signature.inputs, &signature.outputs}) {
    for (const Operand& operand : *operands) {
      if (is_floating(operand.type.dtype) && operand.type.dtype != DType::kF32) {
        fail("op \"{}\" runs on the CPU in f32 only, given {}", signature.node.op,
             to_string(operand.type));
      }
    }
  }
}

}  // namespace concord::cpu

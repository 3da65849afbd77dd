// Small helpers that the CPU kernels share.
#pragma once

#include "concord/base/error.h"
#include "concord/kernels/kernel.h"

namespace concord::cpu {

// Elements per piece of work below which another thread costs more than it saves.
inline constexpr std::int64_t kGrain = 1 << 14;

template <typename T>
T* as(std::byte* operand) {
  return reinterpret_cast<T*>(operand);
}

// Elements of memory that an operand occupies.
inline std::int64_t stored_elements(const Operand& operand) {
  return operand.layout.stored_elements(operand.type.shape);
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

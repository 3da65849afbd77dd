// Runs a kernel of f32 on operands of bf16, where there is no good one for bf16.
#pragma once

#include <memory>

#include "concord/kernels/kernel.h"

namespace concord::cpu {

// The node with f32 in place of bf16.
Signature in_f32(Signature signature);

// `kernel`, made for in_f32(signature), between conversions of its operands.
std::unique_ptr<Kernel> run_in_f32(const Signature& signature, std::unique_ptr<Kernel> kernel);

}  // namespace concord::cpu

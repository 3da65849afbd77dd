// The CPU backend's kernel rules, by op.
#pragma once

#include <string_view>

#include "concord/kernels/kernel.h"

namespace concord::cpu {

// Throws Error naming the op when the CPU backend cannot run it.
const KernelRule& find_kernel_rule(std::string_view op);

// At namespace scope in kernels/cpu/x.cc: const RegisterKernelRule relu{{.op = "relu", ...}};
struct RegisterKernelRule {
  explicit RegisterKernelRule(KernelRule rule);
};

// Layout wishes shared by rules.

// Every operand in the layout of the first input that has one and has as many elements as the
// output; used by element-wise kernels that walk memory flat.
LayoutWish same_layout(const Signature& signature, std::span<const std::optional<Layout>> inputs,
                       KernelPolicy& policy);

// The same, but row-major in place of a layout with padding: for functions with f(0) != 0, which
// would fill the padding.
LayoutWish same_layout_unpadded(const Signature& signature,
                                std::span<const std::optional<Layout>> inputs,
                                KernelPolicy& policy);

// An element-wise kernel may write over any input of the same type and layout.
bool element_wise_in_place(const Signature& signature, std::size_t o, std::size_t i);

}  // namespace concord::cpu

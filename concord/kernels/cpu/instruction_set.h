// The instruction set that oneDNN's kernels use: the processor's, or what DNNL_MAX_CPU_ISA leaves
// of it. Thread safety: the functions share no state.
#pragma once

#include <string>

namespace concord::cpu {

// "AVX-512 with bf16" and the like.
std::string onednn_instruction_set();

// "threads 2 oneDNN 2.6.3 isa 1f": what measured times, and what is chosen by them, depend on.
std::string machine_key(int threads);

// Whether it has products of bf16 (AVX-512's or AMX's): without them bf16 would be slower than f32.
bool has_bf16();

// Throws Error where it has none.
void require_bf16();

// Whether the processor has AVX-512's instructions for bf16, whatever oneDNN may use.
extern const bool kHasAvx512Bf16;

}  // namespace concord::cpu

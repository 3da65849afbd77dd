#include "concord/kernels/cpu/instruction_set.h"

#include <fmt/format.h>

#include <oneapi/dnnl/dnnl.hpp>

#include "concord/base/error.h"

namespace concord::cpu {

std::string onednn_instruction_set() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41:
      return "SSE4.1";
    case dnnl::cpu_isa::avx:
      return "AVX";
    case dnnl::cpu_isa::avx2:
      return "AVX2";
    case dnnl::cpu_isa::avx2_vnni:
      return "AVX2 with VNNI";
    case dnnl::cpu_isa::avx512_core:
      return "AVX-512";
    case dnnl::cpu_isa::avx512_core_vnni:
      return "AVX-512 with VNNI";
    case dnnl::cpu_isa::avx512_core_bf16:
      return "AVX-512 with bf16";
    case dnnl::cpu_isa::avx512_core_amx:
      return "AVX-512 with AMX";
    default:
      return "generic";
  }
}

std::string machine_key(int threads) {
  const dnnl_version_t* version = dnnl_version();
  return fmt::format("threads {} oneDNN {}.{}.{} isa {:x}", threads, version->major, version->minor,
                     version->patch, static_cast<unsigned>(dnnl::get_effective_cpu_isa()));
}

bool has_bf16() {
  // A set's bits are those of what it includes.
  const auto wanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & wanted) == wanted;
}

#if defined(__x86_64__) && defined(__GNUC__)
const bool kHasAvx512Bf16 = __builtin_cpu_supports("avx512bf16") != 0;
#else
const bool kHasAvx512Bf16 = false;
#endif

void require_bf16() {
  if (has_bf16()) return;
  fail(
      "train.precision = \"bf16\" needs a processor that multiplies bf16 (AVX-512 with bf16, or "
      "AMX); this one has {}. Use train.precision = \"f32\"",
      onednn_instruction_set());
}

}  // namespace concord::cpu

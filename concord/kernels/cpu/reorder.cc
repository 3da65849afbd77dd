#include "concord/kernels/cpu/onednn.h"
#include "concord/kernels/cpu/registry.h"

namespace concord::cpu {
namespace {

// The layout pass gives this op its layouts; asked for a wish, it has none.
const RegisterKernelRule reorder{{
    .op = "reorder",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<onednn::OneDnnKernel>(
          onednn::reorder(onednn::describe(s.inputs[0]), onednn::describe(s.outputs[0])),
          std::vector<int>{DNNL_ARG_FROM, DNNL_ARG_TO});
    },
}};

}  // namespace
}  // namespace concord::cpu

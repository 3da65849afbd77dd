// Operands stay row-major: oneDNN's matmul packs them as it goes, and within a tenth of what
// blocked weights give (measured at 128x784x512, 128x512x512 and 64x9216x128, every orientation,
// one thread), while one layout serves forward, backward and the optimizer.
#include "concord/base/error.h"
#include "concord/kernels/cpu/onednn.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/row_matmul.h"

namespace concord::cpu {
namespace {

onednn::MemoryDesc row_vector(const TensorType& type, bool stacked) {
  dnnl::memory::dims dims = {1, type.shape[0]};
  if (stacked) dims.insert(dims.begin(), 1);
  return {dims, onednn::data_type(type.dtype),
          stacked ? dnnl::memory::format_tag::abc : dnnl::memory::format_tag::ab};
}

const RegisterKernelRule matmul{{
    .op = "matmul",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      if (is_row_matmul(s)) return make_row_matmul(s);
      std::vector<int> arguments = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS};
      std::optional<onednn::MemoryDesc> bias;
      if (s.inputs.size() == 3) {
        bias = row_vector(s.inputs[2].type, s.outputs[0].type.shape.rank() > 2);
        arguments.push_back(DNNL_ARG_BIAS);
      }
      arguments.push_back(DNNL_ARG_DST);
      const Attributes& attributes = s.node.attributes;
      const onednn::PrimitiveDesc desc =
          onednn::matmul(onednn::matrices(s.inputs[0].type, attributes.integer("transpose_a") != 0),
                         onednn::matrices(s.inputs[1].type, attributes.integer("transpose_b") != 0),
                         bias, onednn::matrices(s.outputs[0].type, false));
      CONCORD_CHECK(desc, "oneDNN has no matmul for layer {}", s.node.name);
      return std::make_unique<onednn::OneDnnKernel>(desc, arguments);
    },
}};

}  // namespace
}  // namespace concord::cpu

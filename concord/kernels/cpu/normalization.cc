// Batch norm with given statistics: oneDNN's.
#include "concord/base/error.h"
#include "concord/kernels/cpu/onednn.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"

namespace concord::cpu {
namespace {

double epsilon_of(const Signature& s) { return s.node.attributes.real("epsilon"); }
bool has_relu(const Signature& s) { return s.node.attributes.integer("relu") != 0; }

// oneDNN is fast on vectors [N, C] when told that they are channels-last images of one pixel.
onednn::MemoryDesc describe(const Operand& operand) {
  const TensorType& type = operand.type;
  if (type.shape.rank() != 2) return onednn::describe(operand);
  const std::int64_t channels = type.shape[1];
  return {dnnl::memory::dims{type.shape[0], channels, 1, 1}, onednn::data_type(type.dtype),
          dnnl::memory::dims{channels, 1, channels, channels}};
}

// Images in the layout of an image among the inputs; vectors of channels as they are.
LayoutWish layouts(const Signature& s, std::span<const std::optional<Layout>> inputs,
                   KernelPolicy&) {
  const TensorType& image = s.inputs[0].type;
  std::vector<std::optional<Layout>> given;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (s.inputs[i].type == image) given.push_back(inputs[i]);
  }
  const Layout layout = onednn::follow(given, image);
  LayoutWish wish;
  for (const Operand& operand : s.inputs) {
    wish.inputs.push_back(operand.type == image ? layout : Layout());
  }
  for (const Operand& operand : s.outputs) {
    wish.outputs.push_back(operand.type == image ? layout : Layout());
  }
  return wish;
}

// oneDNN normalizes in place: y over x.
bool in_place(const Signature& s, std::size_t o, std::size_t i) {
  return o == 0 && i == 0 && element_wise_in_place(s, o, i);
}

const RegisterKernelRule batch_norm_inference{{
    .op = "batch_norm_inference",
    .layouts = layouts,
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const onednn::PrimitiveDesc desc =
          onednn::batch_norm_inference(describe(s.inputs[0]), epsilon_of(s), has_relu(s));
      CONCORD_CHECK(desc, "oneDNN has no batch norm for layer {}", s.node.name);
      return std::make_unique<onednn::OneDnnKernel>(
          desc, std::vector<int>{DNNL_ARG_SRC, DNNL_ARG_SCALE, DNNL_ARG_SHIFT, DNNL_ARG_MEAN,
                                 DNNL_ARG_VARIANCE, DNNL_ARG_DST});
    },
    .in_place = in_place,
}};

}  // namespace
}  // namespace concord::cpu

// Pooling follows the layout its images come in. Max pooling of pixels that fill vectors has
// kernels of its own, the rest is oneDNN's, whose workspace of max pooling is the op's index: for
// each output, the place of the maximum within its window.
#include <algorithm>

#include "concord/base/error.h"
#include "concord/kernels/cpu/in_f32.h"
#include "concord/kernels/cpu/max_pooling.h"
#include "concord/kernels/cpu/onednn.h"
#include "concord/kernels/cpu/registry.h"

namespace concord::cpu {
namespace {

using dnnl::algorithm;

algorithm algorithm_of(const Node& node) {
  if (!node.attributes.has("count_include_pad")) return algorithm::pooling_max;
  return node.attributes.integer("count_include_pad") != 0 ? algorithm::pooling_avg_include_padding
                                                           : algorithm::pooling_avg_exclude_padding;
}

bool is_max(const Node& node) { return algorithm_of(node) == algorithm::pooling_max; }

// Every operand in the layout that one of them, `leader`, has.
LayoutWish all_like(const Signature& s, const Shape& leader, const Layout& layout) {
  LayoutWish wish;
  for (const Operand& operand : s.inputs) {
    wish.inputs.push_back(resized(layout, leader, operand.type.shape));
  }
  for (const Operand& operand : s.outputs) {
    wish.outputs.push_back(resized(layout, leader, operand.type.shape));
  }
  return wish;
}

// The first layout that the own kernels can take, where they are for this op and there is one.
const Layout* of_vectors(const Signature& s, std::span<const std::optional<Layout>> inputs) {
  if (!is_max(s.node)) return nullptr;
  for (const std::optional<Layout>& layout : inputs) {
    if (layout && has_pixels_of_vectors({s.inputs[0].type, *layout})) return &*layout;
  }
  return nullptr;
}

LayoutWish forward_layouts(const Signature& s, std::span<const std::optional<Layout>> inputs,
                           KernelPolicy&) {
  const TensorType& x = s.inputs[0].type;
  if (const Layout* layout = of_vectors(s, inputs)) return all_like(s, x.shape, *layout);
  return all_like(s, x.shape, onednn::follow(inputs, x));
}

// dy may come back from a row-major reshape: dx, which is larger, is what the layout must suit.
LayoutWish backward_layouts(const Signature& s, std::span<const std::optional<Layout>> inputs,
                            KernelPolicy&) {
  const TensorType& dx = s.outputs[0].type;
  if (const Layout* layout = of_vectors(s, inputs)) {
    return all_like(s, s.inputs[0].type.shape, *layout);
  }
  if (inputs.size() == 1 && inputs[0] && inputs[0]->is_row_major()) {
    return all_like(s, dx.shape, onednn::image_layout(dx));
  }
  const TensorType& dy = s.inputs[0].type;
  return all_like(s, dy.shape, onednn::follow(inputs, dy));
}

// Beside bf16, oneDNN 2.6.3 leaves half of an index of 32 bits unwritten.
bool is_computed_in_f32(const Signature& s) {
  const auto has = [&](DType dtype) {
    const auto is_of_type = [=](const Operand& operand) { return operand.type.dtype == dtype; };
    return std::ranges::any_of(s.inputs, is_of_type) || std::ranges::any_of(s.outputs, is_of_type);
  };
  return has(DType::kBF16) && has(DType::kI32);
}

// Where windows overlap, oneDNN adds up what they send a pixel in bf16.
bool adds_in_bf16(const Signature& s) {
  if (s.outputs[0].type.dtype != DType::kBF16) return false;
  const ops::Window2d window = ops::Window2d::of(s.node);
  const ops::Extent2d windows = ops::spatial_size(s.inputs[0].type.shape);
  const auto overlap = [&](std::size_t along) {
    return window.stride[along] < window.kernel[along] && windows[along] > 1;
  };
  return overlap(0) || overlap(1);
}

std::unique_ptr<Kernel> make_forward(const Signature& s, KernelPolicy& policy) {
  if (auto kernel = is_max(s.node) ? make_max_pooling(s) : nullptr) return kernel;
  if (is_computed_in_f32(s)) return run_in_f32(s, make_forward(in_f32(s), policy));
  const onednn::PrimitiveDesc desc =
      onednn::pooling_forward(algorithm_of(s.node), onednn::describe(s.inputs[0]),
                              onednn::describe(s.outputs[0]), ops::Window2d::of(s.node));
  CONCORD_CHECK(desc, "oneDNN has no pooling for layer {}", s.node.name);
  std::vector<int> arguments = {DNNL_ARG_SRC, DNNL_ARG_DST};
  if (s.outputs.size() == 2) {
    CONCORD_CHECK(desc.query_md(dnnl::query::workspace_md) == onednn::describe(s.outputs[1]),
                  "oneDNN's workspace is not an index of {}", to_string(s.outputs[1].type));
    arguments.push_back(DNNL_ARG_WORKSPACE);
  }
  return std::make_unique<onednn::OneDnnKernel>(desc, arguments);
}

std::unique_ptr<Kernel> make_backward(const Signature& s, KernelPolicy& policy) {
  if (auto kernel = is_max(s.node) ? make_max_pooling(s) : nullptr) return kernel;
  if (is_computed_in_f32(s) || adds_in_bf16(s)) {
    return run_in_f32(s, make_backward(in_f32(s), policy));
  }
  const onednn::PrimitiveDesc desc =
      onednn::pooling_backward(algorithm_of(s.node), onednn::describe(s.outputs[0]),
                               onednn::describe(s.inputs[0]), ops::Window2d::of(s.node));
  CONCORD_CHECK(desc, "oneDNN has no pooling for layer {}", s.node.name);
  std::vector<int> arguments = {DNNL_ARG_DIFF_DST};
  if (s.inputs.size() == 2) arguments.push_back(DNNL_ARG_WORKSPACE);
  arguments.push_back(DNNL_ARG_DIFF_SRC);
  return std::make_unique<onednn::OneDnnKernel>(desc, arguments);
}

const RegisterKernelRule rules[] = {
    RegisterKernelRule({.op = "max_pool2d", .layouts = forward_layouts, .make = make_forward}),
    RegisterKernelRule({.op = "avg_pool2d", .layouts = forward_layouts, .make = make_forward}),
    RegisterKernelRule(
        {.op = "max_pool2d_backward", .layouts = backward_layouts, .make = make_backward}),
    RegisterKernelRule(
        {.op = "avg_pool2d_backward", .layouts = backward_layouts, .make = make_backward}),
};

}  // namespace
}  // namespace concord::cpu

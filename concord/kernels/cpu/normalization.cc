#include <algorithm>
#include <array>

#include "concord/base/error.h"
#include "concord/base/parallel.h"
#include "concord/kernels/cpu/onednn.h"
#include "concord/kernels/cpu/registry.h"

namespace concord::cpu {
namespace {

double epsilon_of(const Signature& s) { return s.node.attributes.real("epsilon"); }
bool has_relu(const Signature& s) { return s.node.attributes.integer("relu") != 0; }

std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

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

// oneDNN normalizes in place: y over x, dx over dy.
bool in_place(const Signature& s, std::size_t o, std::size_t i) {
  return o == 0 && i == 0 && element_wise_in_place(s, o, i);
}

// The fused forward op. oneDNN insists on marking what the activation let through; the op's
// backward reads that from y, so the marks go to the scratchpad.
class NormalizeRelu final : public Kernel {
 public:
  NormalizeRelu(const onednn::PrimitiveDesc& desc, std::vector<int> arguments)
      : workspace_bytes_(aligned(desc.query_md(dnnl::query::workspace_md).get_size())),
        execution_(desc, with_workspace(std::move(arguments))) {}

  std::size_t scratchpad_bytes() const override {
    return workspace_bytes_ + execution_.scratchpad_bytes();
  }

  void run(std::span<std::byte* const> operands) override {
    std::array<std::byte*, 8> pointers;
    std::copy_n(operands.begin(), 7, pointers.begin());  // the last is the workspace
    pointers[7] = pointers[6] + workspace_bytes_;
    execution_.run(pointers);
  }

 private:
  static std::vector<int> with_workspace(std::vector<int> arguments) {
    arguments.push_back(DNNL_ARG_WORKSPACE);
    CONCORD_CHECK(arguments.size() == 7);
    return arguments;
  }

  std::size_t workspace_bytes_;
  onednn::Execution execution_;
};

// Backward. With relu, dL/d(before the activation) is computed into the scratchpad first.
class NormalizeBackward final : public Kernel {
 public:
  NormalizeBackward(const onednn::PrimitiveDesc& desc, bool relu, std::int64_t elements)
      : relu_(relu),
        elements_(elements),
        masked_bytes_(relu ? aligned(static_cast<std::size_t>(elements) * sizeof(float)) : 0),
        execution_(desc, {DNNL_ARG_DIFF_DST, DNNL_ARG_SRC, DNNL_ARG_SCALE, DNNL_ARG_MEAN,
                          DNNL_ARG_VARIANCE, onednn::kBatchNormBackwardShift, DNNL_ARG_DIFF_SRC,
                          DNNL_ARG_DIFF_SCALE, DNNL_ARG_DIFF_SHIFT}) {}

  std::size_t scratchpad_bytes() const override {
    return masked_bytes_ + execution_.scratchpad_bytes();
  }

  // operands: dy, x, gamma, mean, variance, y with relu, dx, dgamma, dbeta, scratchpad if any.
  void run(std::span<std::byte* const> operands) override {
    const std::size_t first_output = relu_ ? 6 : 5;
    std::byte* scratchpad = scratchpad_bytes() > 0 ? operands[first_output + 3] : nullptr;
    if (relu_) mask(operands[0], operands[5], scratchpad);
    std::array<std::byte*, 10> pointers;
    std::copy_n(operands.begin(), 5, pointers.begin());
    if (relu_) pointers[0] = scratchpad;
    pointers[5] = operands[2];  // not read
    std::copy_n(operands.begin() + first_output, 3, pointers.begin() + 6);
    pointers[9] = scratchpad + masked_bytes_;
    execution_.run(pointers);
  }

 private:
  void mask(const std::byte* dy_bytes, const std::byte* y_bytes, std::byte* masked_bytes) const {
    const auto* dy = reinterpret_cast<const float*>(dy_bytes);
    const auto* y = reinterpret_cast<const float*>(y_bytes);
    auto* masked = reinterpret_cast<float*>(masked_bytes);
    parallel_for(elements_, 1 << 14, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) masked[i] = y[i] > 0 ? dy[i] : 0.0f;
    });
  }

  bool relu_;
  std::int64_t elements_;
  std::size_t masked_bytes_;
  onednn::Execution execution_;
};

const RegisterKernelRule batch_norm{{
    .op = "batch_norm",
    .layouts = layouts,
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const onednn::PrimitiveDesc desc =
          onednn::batch_norm_training(describe(s.inputs[0]), epsilon_of(s), has_relu(s));
      CONCORD_CHECK(desc, "oneDNN has no batch norm for layer {}", s.node.name);
      const std::vector<int> arguments = {DNNL_ARG_SRC, DNNL_ARG_SCALE, DNNL_ARG_SHIFT,
                                          DNNL_ARG_DST, DNNL_ARG_MEAN,  DNNL_ARG_VARIANCE};
      if (has_relu(s)) return std::make_unique<NormalizeRelu>(desc, arguments);
      return std::make_unique<onednn::OneDnnKernel>(desc, arguments);
    },
    .in_place = in_place,
}};

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

const RegisterKernelRule batch_norm_backward{{
    .op = "batch_norm_backward",
    .layouts = layouts,
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const onednn::PrimitiveDesc desc =
          onednn::batch_norm_backward(describe(s.inputs[1]), epsilon_of(s));
      CONCORD_CHECK(desc, "oneDNN has no batch norm for layer {}", s.node.name);
      const Operand& dy = s.inputs[0];
      CONCORD_CHECK(!has_relu(s) || dy.type.dtype == DType::kF32);
      return std::make_unique<NormalizeBackward>(desc, has_relu(s),
                                                 dy.layout.stored_elements(dy.type.shape));
    },
    .in_place = in_place,
}};

}  // namespace
}  // namespace concord::cpu

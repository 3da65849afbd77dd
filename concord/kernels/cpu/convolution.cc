// Convolution: oneDNN's direct algorithm (Georganas et al. 2018) or Winograd's (Lavin, Gray 2016),
// oneDNN's or Concord's own, chosen for each shape and for each of the three products by timing
// them once; few channels have kernels of their own. In bf16 oneDNN has the direct algorithm alone;
// where a conversion to f32 and back leaves another ahead of it, the product is computed in f32.
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <ranges>

#include "concord/base/clock.h"
#include "concord/base/error.h"
#include "concord/kernels/cpu/in_f32.h"
#include "concord/kernels/cpu/instruction_set.h"
#include "concord/kernels/cpu/narrow_convolution.h"
#include "concord/kernels/cpu/onednn.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/winograd_convolution.h"
#include "concord/tensor/buffer.h"
#include "concord/tensor/relayout.h"

namespace concord::cpu {
namespace {

using dnnl::algorithm;
using onednn::MemoryDesc;
using onednn::PrimitiveDesc;

// One of the three products of a layer. Operands are the node's inputs, then its outputs.
class Convolution {
 public:
  explicit Convolution(const Signature& s)
      : node_(s.node), operands_(s.inputs), groups_(s.node.attributes.integer("groups")) {
    operands_.insert(operands_.end(), s.outputs.begin(), s.outputs.end());
    if (node_.op == "conv2d") {
      build_ = onednn::convolution_forward;
      arguments_ = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
      x_ = 0, w_ = 1, y_ = operands_.size() - 1;
      if (operands_.size() == 4) {
        bias_ = 2;
        arguments_.insert(arguments_.begin() + 2, DNNL_ARG_BIAS);
      }
    } else if (node_.op == "conv2d_backward_data") {
      build_ = onednn::convolution_backward_data;
      arguments_ = {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC};
      y_ = 0, w_ = 1, x_ = 2;
    } else {
      build_ = onednn::convolution_backward_weights;
      arguments_ = {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS};
      x_ = 0, y_ = 1, w_ = 2;
      if (operands_.size() == 4) {
        bias_ = 3;
        arguments_.push_back(DNNL_ARG_DIFF_BIAS);
      }
    }
    window_ = ops::Window2d::of(node_);
    window_.kernel = ops::spatial_size(operands_[w_].type.shape);
  }

  // Whether oneDNN has a direct kernel for this product that does not unfold the images.
  bool has_direct_kernel() const;
  bool has_winograd_kernel() const;
  bool is_pointwise() const { return window_.kernel == ops::Extent2d{1, 1}; }
  LayoutWish wish(algorithm algorithm, std::span<const std::optional<Layout>> inputs) const;
  std::unique_ptr<Kernel> make(algorithm algorithm) const;
  // Everything that the fastest method depends on.
  std::string key(int threads) const;

 private:
  PrimitiveDesc build(algorithm algorithm, const std::vector<MemoryDesc>& descs) const {
    return build_({algorithm, descs[x_], descs[w_], descs[y_],
                   bias_ ? std::optional(descs[*bias_]) : std::nullopt, window_});
  }
  std::vector<MemoryDesc> free_layouts() const;
  MemoryDesc in_layout(std::size_t i, const Layout& layout) const {
    return onednn::describe({operands_[i].type, layout}, i == w_ ? groups_ : 1);
  }
  std::optional<Layout> layout_in(const PrimitiveDesc& desc, std::size_t i) const {
    return onednn::layout_of(desc.query_md(dnnl::query::exec_arg_md, arguments_[i]),
                             operands_[i].type.shape);
  }
  bool readable(const PrimitiveDesc& desc) const;

  Node node_;
  std::vector<Operand> operands_;
  std::int64_t groups_;
  PrimitiveDesc (*build_)(const onednn::ConvolutionDescs&);
  std::vector<int> arguments_;  // of each operand
  std::size_t x_, w_, y_;       // operands: the images, weights and results, or their gradients
  std::optional<std::size_t> bias_;
  ops::Window2d window_;
};

std::vector<MemoryDesc> Convolution::free_layouts() const {
  std::vector<MemoryDesc> descs;
  for (std::size_t i = 0; i < operands_.size(); ++i) {
    descs.push_back(bias_ == i ? in_layout(i, Layout())
                               : onednn::any_layout(operands_[i].type, i == w_ ? groups_ : 1));
  }
  return descs;
}

// Whether a Layout can say the layout of every operand.
bool Convolution::readable(const PrimitiveDesc& desc) const {
  for (std::size_t i = 0; i < operands_.size(); ++i) {
    if (!layout_in(desc, i)) return false;
  }
  return true;
}

bool Convolution::has_direct_kernel() const {
  const PrimitiveDesc desc = build(algorithm::convolution_direct, free_layouts());
  if (!desc) return false;
  const std::string_view name = desc.impl_info_str();
  return name.find("gemm") == std::string_view::npos && name.find("ref") == std::string_view::npos;
}

bool Convolution::has_winograd_kernel() const {
  if (window_.kernel != ops::Extent2d{3, 3}) return false;
  const PrimitiveDesc desc = build(algorithm::convolution_winograd, free_layouts());
  return desc && readable(desc);
}

std::string Convolution::key(int threads) const {
  std::string text = node_.op;
  for (const Operand& operand : operands_) text += " " + to_string(operand.type);
  return text + fmt::format(" stride {},{} padding {},{} dilation {},{} groups {} {}",
                            window_.stride[0], window_.stride[1], window_.padding[0],
                            window_.padding[1], window_.dilation[0], window_.dilation[1], groups_,
                            cpu::machine_key(threads));
}

LayoutWish Convolution::wish(algorithm algorithm,
                             std::span<const std::optional<Layout>> inputs) const {
  std::vector<MemoryDesc> descs = free_layouts();
  PrimitiveDesc desc = build(algorithm, descs);
  if (desc && !readable(desc)) {  // some grouped weights
    descs[w_] = in_layout(w_, Layout());
    desc = build(algorithm, descs);
  }
  if (!desc) fail("oneDNN has no convolution for layer {} ({})", node_.name, node_.op);
  // An input stays as it comes where the same implementation takes it so.
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i] || layout_in(desc, i) == inputs[i]) continue;
    std::vector<MemoryDesc> trial = descs;
    trial[i] = in_layout(i, *inputs[i]);
    const PrimitiveDesc other = build(algorithm, trial);
    if (!other || !readable(other)) continue;
    if (std::string_view(other.impl_info_str()) != desc.impl_info_str()) continue;
    descs = std::move(trial);
    desc = other;
  }
  LayoutWish wish;
  for (std::size_t i = 0; i < operands_.size(); ++i) {
    (i < inputs.size() ? wish.inputs : wish.outputs).push_back(layout_in(desc, i).value());
  }
  return wish;
}

std::unique_ptr<Kernel> Convolution::make(algorithm algorithm) const {
  std::vector<MemoryDesc> descs = free_layouts();
  PrimitiveDesc desc = build(algorithm, descs);
  // Operands are pinned only where oneDNN would choose otherwise: what it chose itself it knows
  // best, strides of extents 1 included.
  for (std::size_t i = 0; i < operands_.size() && desc; ++i) {
    if (layout_in(desc, i) == operands_[i].layout) continue;
    descs[i] = in_layout(i, operands_[i].layout);
    desc = build(algorithm, descs);
  }
  CONCORD_CHECK(desc, "oneDNN has no convolution for layer {} in these layouts", node_.name);
  for (std::size_t i = 0; i < operands_.size(); ++i) {
    CONCORD_CHECK(layout_in(desc, i) == operands_[i].layout, "operand {} of {}", i, node_.name);
  }
  return std::make_unique<onednn::OneDnnKernel>(desc, arguments_);
}

enum class Method : std::uint8_t { kDirect, kOneDnnWinograd, kWinograd, kInF32 };

std::string_view name_of(Method method) {
  switch (method) {
    case Method::kDirect:
      return "direct";
    case Method::kOneDnnWinograd:
      return "winograd";
    case Method::kWinograd:
      return "own winograd";
    case Method::kInF32:
      return "in f32";
  }
  CONCORD_CHECK(false, "method {}", static_cast<int>(method));
}

algorithm algorithm_of(Method method) {
  return method == Method::kOneDnnWinograd ? algorithm::convolution_winograd
                                           : algorithm::convolution_direct;
}

// Those worth timing; without timing the first is taken.
std::vector<Method> candidates(const Signature& s, const KernelPolicy& policy) {
  const Convolution convolution(s);
  const bool is_bf16 = s.inputs[0].type.dtype == DType::kBF16;
  // oneDNN 2.6.3 unfolds images to compute gradients of some odd numbers of channels: of 1 to 6
  // channels, 28x28, that took 4.6 times as long as in f32.
  if (is_bf16 && s.node.op == "conv2d_backward_weights" && !convolution.has_direct_kernel()) {
    return {Method::kInF32};
  }
  std::vector<Method> methods = {Method::kDirect};
  if (!policy.winograd) return methods;
  if (winograd_convolution_layouts(s)) methods.push_back(Method::kWinograd);
  if (is_bf16 && !convolution.is_pointwise()) methods.push_back(Method::kInF32);
  if (!is_bf16 && convolution.has_winograd_kernel()) methods.push_back(Method::kOneDnnWinograd);
  return methods;
}

LayoutWish layouts(const Signature& signature, std::span<const std::optional<Layout>> inputs,
                   KernelPolicy& policy);
std::unique_ptr<Kernel> make(const Signature& signature, KernelPolicy& policy);

LayoutWish layouts(const Signature& signature, Method method,
                   std::span<const std::optional<Layout>> inputs, KernelPolicy& policy) {
  if (method == Method::kInF32) return layouts(in_f32(signature), inputs, policy);
  if (method == Method::kWinograd) return winograd_convolution_layouts(signature).value();
  return Convolution(signature).wish(algorithm_of(method), inputs);
}

std::unique_ptr<Kernel> make(const Signature& signature, Method method, KernelPolicy& policy) {
  if (method == Method::kInF32) return run_in_f32(signature, make(in_f32(signature), policy));
  if (method == Method::kWinograd) return make_winograd_convolution(signature);
  return Convolution(signature).make(algorithm_of(method));
}

// Runs a method on zeros, which take as long as numbers do, in the layouts of its wish.
class Trial {
 public:
  Trial(Signature signature, Method method, KernelPolicy& policy) {
    const std::vector<std::optional<Layout>> free(signature.inputs.size());
    const LayoutWish wish = layouts(signature, method, free, policy);
    lay_out(signature.inputs, wish.inputs);
    lay_out(signature.outputs, wish.outputs);
    kernel_ = make(signature, method, policy);
    buffers_.emplace_back(kernel_->scratchpad_bytes());
    for (Buffer& buffer : buffers_) pointers_.push_back(buffer.data());
  }

  double seconds() {
    const double before = now_seconds();
    kernel_->run(pointers_);
    return now_seconds() - before;
  }

 private:
  void lay_out(std::vector<Operand>& operands, const std::vector<Layout>& layouts) {
    for (std::size_t i = 0; i < operands.size(); ++i) {
      operands[i].layout = layouts[i];
      buffers_.emplace_back(stored_bytes(operands[i].type, layouts[i]));
    }
  }

  std::vector<Buffer> buffers_;
  std::vector<std::byte*> pointers_;
  std::unique_ptr<Kernel> kernel_;
};

// The methods take turns and the fastest run of each counts, so that what disturbs the machine for
// a moment decides nothing.
Method fastest(const Signature& signature, const std::vector<Method>& methods,
               KernelPolicy& policy) {
  std::vector<Trial> trials;
  for (const Method method : methods) trials.emplace_back(signature, method, policy);
  std::vector<double> shortest(trials.size(), std::numeric_limits<double>::infinity());
  const double start = now_seconds();
  for (int round = 0; round < 4 || (round < 25 && now_seconds() - start < 8e-3); ++round) {
    for (std::size_t i = 0; i < trials.size(); ++i) {
      shortest[i] = std::min(shortest[i], trials[i].seconds());
    }
  }
  return methods[static_cast<std::size_t>(std::ranges::min_element(shortest) - shortest.begin())];
}

Method choose(const Signature& signature, KernelPolicy& policy) {
  const std::vector<Method> methods = candidates(signature, policy);
  if (methods.size() == 1) return methods[0];
  const std::string key = Convolution(signature).key(policy.threads);
  auto choice = policy.choices.find(key);
  if (choice == policy.choices.end()) {
    const Method method = policy.measure ? fastest(signature, methods, policy) : methods[0];
    choice = policy.choices.emplace(key, name_of(method)).first;
  }
  const auto method = std::ranges::find(methods, choice->second, name_of);
  if (method == methods.end()) {
    fail(
        "the kernel choice \"{}\" of {} is none of \"{}\"; if it is not a resumed run's, delete "
        "the "
        "cache of kernel choices (~/.cache/concord/kernels.json)",
        choice->second, key, fmt::join(methods | std::views::transform(name_of), "\", \""));
  }
  return *method;
}

LayoutWish layouts(const Signature& signature, std::span<const std::optional<Layout>> inputs,
                   KernelPolicy& policy) {
  if (const auto wish = narrow_convolution_layouts(signature)) return *wish;
  return layouts(signature, choose(signature, policy), inputs, policy);
}

std::unique_ptr<Kernel> make(const Signature& signature, KernelPolicy& policy) {
  if (auto kernel = make_narrow_convolution(signature)) return kernel;
  return make(signature, choose(signature, policy), policy);
}

const RegisterKernelRule rules[] = {
    RegisterKernelRule({.op = "conv2d", .layouts = layouts, .make = make}),
    RegisterKernelRule({.op = "conv2d_backward_data", .layouts = layouts, .make = make}),
    RegisterKernelRule({.op = "conv2d_backward_weights", .layouts = layouts, .make = make}),
};

}  // namespace
}  // namespace concord::cpu

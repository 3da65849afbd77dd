#include "concord/kernels/cpu/onednn_primitives.h"

namespace concord::cpu::onednn {
namespace {

using dnnl::memory;
using dnnl::normalization_flags;
using dnnl::prop_kind;

dnnl::primitive_attr attributes() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

// The descriptor of `Primitive` for these arguments; oneDNN 2 wants them in an object of their own.
template <typename Primitive, typename... Arguments>
typename Primitive::primitive_desc describe_with(const dnnl::primitive_attr& attr,
                                                 const Arguments&... arguments) {
#if DNNL_VERSION_MAJOR >= 3
  return typename Primitive::primitive_desc(cpu_engine(), arguments..., attr, true);
#else
  return typename Primitive::primitive_desc(typename Primitive::desc(arguments...), attr,
                                            cpu_engine(), true);
#endif
}

template <typename Primitive, typename... Arguments>
typename Primitive::primitive_desc describe(const Arguments&... arguments) {
  return describe_with<Primitive>(attributes(), arguments...);
}

// The same for a backward primitive, which wants to see its forward one.
template <typename Primitive, typename Forward, typename... Arguments>
PrimitiveDesc describe_backward(const Forward& forward, const Arguments&... arguments) {
  if (!forward) return {};
#if DNNL_VERSION_MAJOR >= 3
  return
      typename Primitive::primitive_desc(cpu_engine(), arguments..., forward, attributes(), true);
#else
  return typename Primitive::primitive_desc(typename Primitive::desc(arguments...), attributes(),
                                            cpu_engine(), forward, true);
#endif
}

// A tensor of the same dims, of another element type and any layout.
MemoryDesc retyped(const MemoryDesc& desc, memory::data_type type) {
#if DNNL_VERSION_MAJOR >= 3
  return MemoryDesc(desc.get_dims(), type, memory::format_tag::any);
#else
  return MemoryDesc(desc.dims(), type, memory::format_tag::any);
#endif
}

memory::data_type type_of(const MemoryDesc& desc) {
#if DNNL_VERSION_MAJOR >= 3
  return desc.get_data_type();
#else
  return desc.data_type();
#endif
}

memory::dims dims(const ops::Extent2d& extent) { return {extent[0], extent[1]}; }

// oneDNN counts the gaps of a dilated window.
memory::dims dilates(const ops::Window2d& window) {
  return {window.dilation[0] - 1, window.dilation[1] - 1};
}

dnnl::convolution_forward::primitive_desc forward_desc(const ConvolutionDescs& d,
                                                       dnnl::algorithm algorithm) {
  const memory::dims stride = dims(d.window.stride), padding = dims(d.window.padding);
  if (d.bias) {
    return describe<dnnl::convolution_forward>(prop_kind::forward_training, algorithm, d.x, d.w,
                                               *d.bias, d.y, stride, dilates(d.window), padding,
                                               padding);
  }
  return describe<dnnl::convolution_forward>(prop_kind::forward_training, algorithm, d.x, d.w, d.y,
                                             stride, dilates(d.window), padding, padding);
}

// oneDNN 3 takes the dilation of a pooling window too, and both input and output of batch norm.
dnnl::pooling_forward::primitive_desc pooling_desc(dnnl::algorithm algorithm, const MemoryDesc& x,
                                                   const MemoryDesc& y,
                                                   const ops::Window2d& window) {
  const memory::dims stride = dims(window.stride), padding = dims(window.padding);
#if DNNL_VERSION_MAJOR >= 3
  return describe<dnnl::pooling_forward>(prop_kind::forward_training, algorithm, x, y, stride,
                                         dims(window.kernel), dilates(window), padding, padding);
#else
  return describe<dnnl::pooling_forward>(prop_kind::forward_training, algorithm, x, y, stride,
                                         dims(window.kernel), padding, padding);
#endif
}

}  // namespace

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

const dnnl::stream& cpu_stream() {
  static const dnnl::stream stream(cpu_engine());
  return stream;
}

std::optional<BlockedFormat> blocked_format(const MemoryDesc& desc) {
  BlockedFormat format;
#if DNNL_VERSION_MAJOR >= 3
  if (desc.get_format_kind() != memory::format_kind::blocked) return std::nullopt;
  format.dims = desc.get_dims();
  format.padded = desc.get_padded_dims();
  format.strides = desc.get_strides();
  const memory::dims dims = desc.get_inner_idxs(), sizes = desc.get_inner_blks();
  for (std::size_t b = 0; b < sizes.size(); ++b) {
    format.blocks.push_back({static_cast<int>(dims[b]), sizes[b]});
  }
#else
  const dnnl_memory_desc_t& d = desc.data;
  if (d.format_kind != dnnl_blocked || d.extra.flags != dnnl_memory_extra_flag_none) {
    return std::nullopt;
  }
  const dnnl_blocking_desc_t& blocking = d.format_desc.blocking;
  format.dims.assign(d.dims, d.dims + d.ndims);
  format.padded.assign(d.padded_dims, d.padded_dims + d.ndims);
  format.strides.assign(blocking.strides, blocking.strides + d.ndims);
  for (int b = 0; b < blocking.inner_nblks; ++b) {
    format.blocks.push_back({static_cast<int>(blocking.inner_idxs[b]), blocking.inner_blks[b]});
  }
#endif
  return format;
}

std::optional<MemoryDesc> tagged_desc(const memory::dims& dims, memory::data_type type,
                                      memory::format_tag tag) {
  MemoryDesc desc(dims, type, tag, /*allow_empty=*/true);
#if DNNL_VERSION_MAJOR >= 3
  if (desc.get(/*allow_empty=*/true) == nullptr) return std::nullopt;
#else
  if (desc.is_zero()) return std::nullopt;
#endif
  return desc;
}

PrimitiveDesc convolution_forward(const ConvolutionDescs& d) {
  return forward_desc(d, d.algorithm);
}

PrimitiveDesc convolution_backward_data(const ConvolutionDescs& d) {
  const memory::dims stride = dims(d.window.stride), padding = dims(d.window.padding);
  return describe_backward<dnnl::convolution_backward_data>(
      forward_desc(d, dnnl::algorithm::convolution_direct), d.algorithm, d.x, d.w, d.y, stride,
      dilates(d.window), padding, padding);
}

PrimitiveDesc convolution_backward_weights(const ConvolutionDescs& d) {
  const memory::dims stride = dims(d.window.stride), padding = dims(d.window.padding);
  // Gradients of weights are f32 where images, and so the weights forward, are bf16.
  ConvolutionDescs of_forward = d;
  if (type_of(d.w) != type_of(d.x)) of_forward.w = retyped(d.w, type_of(d.x));
  const auto forward = forward_desc(of_forward, dnnl::algorithm::convolution_direct);
  if (d.bias) {
    return describe_backward<dnnl::convolution_backward_weights>(
        forward, d.algorithm, d.x, d.w, *d.bias, d.y, stride, dilates(d.window), padding, padding);
  }
  return describe_backward<dnnl::convolution_backward_weights>(
      forward, d.algorithm, d.x, d.w, d.y, stride, dilates(d.window), padding, padding);
}

PrimitiveDesc pooling_forward(dnnl::algorithm algorithm, const MemoryDesc& x, const MemoryDesc& y,
                              const ops::Window2d& window) {
  return pooling_desc(algorithm, x, y, window);
}

PrimitiveDesc pooling_backward(dnnl::algorithm algorithm, const MemoryDesc& dx,
                               const MemoryDesc& dy, const ops::Window2d& window) {
  const auto forward = pooling_desc(algorithm, dx, dy, window);
  const memory::dims stride = dims(window.stride), padding = dims(window.padding);
#if DNNL_VERSION_MAJOR >= 3
  return describe_backward<dnnl::pooling_backward>(
      forward, algorithm, dx, dy, stride, dims(window.kernel), dilates(window), padding, padding);
#else
  return describe_backward<dnnl::pooling_backward>(forward, algorithm, dx, dy, stride,
                                                   dims(window.kernel), padding, padding);
#endif
}

PrimitiveDesc batch_norm_inference(const MemoryDesc& x, double epsilon, bool relu) {
  const normalization_flags flags =
      normalization_flags::use_scale | normalization_flags::use_shift |
      normalization_flags::use_global_stats |
      (relu ? normalization_flags::fuse_norm_relu : normalization_flags::none);
#if DNNL_VERSION_MAJOR >= 3
  return describe<dnnl::batch_normalization_forward>(prop_kind::forward_inference, x, x,
                                                     static_cast<float>(epsilon), flags);
#else
  return describe<dnnl::batch_normalization_forward>(prop_kind::forward_inference, x,
                                                     static_cast<float>(epsilon), flags);
#endif
}

PrimitiveDesc matmul(const MemoryDesc& a, const MemoryDesc& b,
                     const std::optional<MemoryDesc>& bias, const MemoryDesc& y, bool add) {
  dnnl::primitive_attr attr = attributes();
  if (add) {
    dnnl::post_ops sum;
    sum.append_sum();
    attr.set_post_ops(sum);
  }
  if (bias) return describe_with<dnnl::matmul>(attr, a, b, *bias, y);
  return describe_with<dnnl::matmul>(attr, a, b, y);
}

PrimitiveDesc reorder(const MemoryDesc& from, const MemoryDesc& to) {
  return dnnl::reorder::primitive_desc(cpu_engine(), from, cpu_engine(), to, attributes(), true);
}

}  // namespace concord::cpu::onednn

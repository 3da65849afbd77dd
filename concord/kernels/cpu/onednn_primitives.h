// oneDNN's primitives, one factory for each kind. The interfaces of oneDNN 2 and 3 differ; the
// difference is confined to this file's source.
//
// A factory returns an empty descriptor when oneDNN has no implementation for what is asked. Every
// primitive takes its scratchpad from the caller. A memory descriptor of format `any` leaves the
// layout to oneDNN. Throws dnnl::error when oneDNN rejects the arguments.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <vector>

#include "concord/ops/window.h"
#include "concord/tensor/layout.h"

namespace concord::cpu::onednn {

using MemoryDesc = dnnl::memory::desc;
using PrimitiveDesc = dnnl::primitive_desc_base;

// The CPU engine and the one stream of this process. Neither has state: any thread may use them.
const dnnl::engine& cpu_engine();
const dnnl::stream& cpu_stream();

// What a memory descriptor says about places in memory.
struct BlockedFormat {
  std::vector<std::int64_t> dims, padded, strides;
  std::vector<Layout::Block> blocks;
};

// nullopt when the format is one that only oneDNN can read.
std::optional<BlockedFormat> blocked_format(const MemoryDesc& desc);

// nullopt when the tag is not one for tensors of so many dims.
std::optional<MemoryDesc> tagged_desc(const dnnl::memory::dims& dims, dnnl::memory::data_type type,
                                      dnnl::memory::format_tag tag);

struct ConvolutionDescs {
  dnnl::algorithm algorithm;  // convolution_direct or convolution_winograd
  MemoryDesc x, w, y;         // or their gradients
  std::optional<MemoryDesc> bias;
  ops::Window2d window;
};

PrimitiveDesc convolution_forward(const ConvolutionDescs& d);
PrimitiveDesc convolution_backward_data(const ConvolutionDescs& d);
PrimitiveDesc convolution_backward_weights(const ConvolutionDescs& d);

// `algorithm`: pooling_max, pooling_avg_include_padding or pooling_avg_exclude_padding.
PrimitiveDesc pooling_forward(dnnl::algorithm algorithm, const MemoryDesc& x, const MemoryDesc& y,
                              const ops::Window2d& window);
PrimitiveDesc pooling_backward(dnnl::algorithm algorithm, const MemoryDesc& dx,
                               const MemoryDesc& dy, const ops::Window2d& window);

// Scale and shift are arguments of their own. With `relu` the training form writes a workspace.
PrimitiveDesc batch_norm_inference(const MemoryDesc& x, double epsilon, bool relu);

// With `add` the product is added to what y holds.
PrimitiveDesc matmul(const MemoryDesc& a, const MemoryDesc& b,
                     const std::optional<MemoryDesc>& bias, const MemoryDesc& y, bool add = false);

PrimitiveDesc reorder(const MemoryDesc& from, const MemoryDesc& to);

}  // namespace concord::cpu::onednn

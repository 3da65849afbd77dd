// What the oneDNN kernels share: memory descriptors of Concord's layouts, and a kernel that runs
// one primitive.
#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <vector>

#include "concord/kernels/cpu/onednn_primitives.h"
#include "concord/kernels/kernel.h"

namespace concord::cpu::onednn {

// Throws Error for an element type that oneDNN does not have.
dnnl::memory::data_type data_type(DType dtype);

// With `groups` > 1 a weight [O, I/groups, Kh, Kw] is oneDNN's [groups, O/groups, I/groups, Kh,
// Kw].
MemoryDesc any_layout(const TensorType& type, std::int64_t groups = 1);
MemoryDesc describe(const Operand& operand, std::int64_t groups = 1);
// A row-major matrix, or stack of them; `transposed`: seen with rows and columns exchanged.
MemoryDesc matrices(const TensorType& type, bool transposed = false);
// The layout of a tensor of this shape, or nullopt when a Layout cannot say it.
std::optional<Layout> layout_of(const MemoryDesc& desc, const Shape& shape);

// The layout in which a convolution prefers images [N, C, H, W]; row-major for other shapes.
Layout image_layout(const TensorType& type);
// What is wished for an image whose inputs come in these layouts: the first that is not row-major
// (someone cared) and not of tiles of samples, which oneDNN does not know, else row-major, else
// (all free) image_layout.
Layout follow(std::span<const std::optional<Layout>> given, const TensorType& type);

// A primitive and its arguments, compiled once. Nothing is allocated here while it runs.
class Execution {
 public:
  // `arguments`: oneDNN's name (DNNL_ARG_...) of each pointer that `run` takes, 0 for pointers that
  // the primitive does not use; followed by the scratchpad, if the primitive wants one.
  Execution(const PrimitiveDesc& desc, const std::vector<int>& arguments);

  std::size_t scratchpad_bytes() const { return scratchpad_bytes_; }
  void run(std::span<std::byte* const> pointers);

 private:
  struct Bound {
    std::size_t pointer;  // index
    dnnl::memory memory;
    std::byte* data;  // what the memory points at
  };
  dnnl::primitive primitive_;
  std::vector<Bound> bound_;
  std::vector<dnnl_exec_arg_t> arguments_;
  std::size_t scratchpad_bytes_ = 0;
};

// A kernel that is one primitive; `arguments` name the node's inputs, then its outputs.
class OneDnnKernel final : public Kernel {
 public:
  OneDnnKernel(const PrimitiveDesc& desc, const std::vector<int>& arguments)
      : execution_(desc, arguments) {}
  void run(std::span<std::byte* const> operands) override { execution_.run(operands); }
  std::size_t scratchpad_bytes() const override { return execution_.scratchpad_bytes(); }

 private:
  Execution execution_;
};

}  // namespace concord::cpu::onednn

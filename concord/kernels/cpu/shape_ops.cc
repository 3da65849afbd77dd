// Kernels that move elements. They work on bytes: an element type matters only by its size.
#include "concord/ops/shape_ops.h"

#include <algorithm>
#include <cstring>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/loops.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/tensor/block_copy.h"

namespace concord::cpu {
namespace {

class Reshape final : public Kernel {
 public:
  explicit Reshape(std::int64_t bytes) : bytes_(bytes) {}
  void run(std::span<std::byte* const> operands) override {
    parallel_for(bytes_, 4 * kGrain, [&](std::int64_t begin, std::int64_t end) {
      std::memcpy(operands[1] + begin, operands[0] + begin, static_cast<std::size_t>(end - begin));
    });
  }

 private:
  std::int64_t bytes_;
};

const RegisterKernelRule reshape{{
    .op = "reshape",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<Reshape>(static_cast<std::int64_t>(s.outputs[0].type.bytes()));
    },
    .view = true,
}};

// y, row-major, gathered from where the loops say in x: transposes and broadcasts.
template <typename T>
class Gather final : public Kernel {
 public:
  explicit Gather(Loops<1> loops) : loops_(std::move(loops)) {
    for (const std::int64_t extent : loops_.extents) elements_ *= extent;
    if (loops_.inner_stride(0) <= 1) return;
    // Where x runs along another loop, squares are read and written: both stay in cache.
    for (int d = 0; d + 1 < loops_.depth(); ++d) {
      if (loops_.strides[0][static_cast<std::size_t>(d)] == 1) along_x_ = d;
    }
    for (int d = loops_.depth() - 1; d > along_x_ && along_x_ >= 0; --d) {
      y_stride_ *= loops_.extents[static_cast<std::size_t>(d)];
    }
  }

  void run(std::span<std::byte* const> operands) override {
    const T* x = as<T>(operands[0]);
    T* y = as<T>(operands[1]);
    if (along_x_ >= 0) return transpose(x, y);
    parallel_for(elements_, kGrain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t inner = loops_.inner(), stride = loops_.inner_stride(0);
      while (begin < end) {
        const std::int64_t row = begin / inner, column = begin % inner;
        const std::int64_t count = std::min(end - begin, inner - column);
        const T* source = x + loops_.row_offsets(row)[0] + column * stride;
        if (stride == 1) {
          std::copy_n(source, count, y + begin);
        } else {
          for (std::int64_t i = 0; i < count; ++i) y[begin + i] = source[i * stride];
        }
        begin += count;
      }
    });
  }

 private:
  static constexpr std::int64_t kSide = 16;

  // The rows of y, a row being a run of the innermost loop, taken kSide rows at a time that are
  // neighbours in x.
  void transpose(const T* x, T* y) const {
    const std::int64_t inner = loops_.inner(), stride = loops_.inner_stride(0);
    const std::int64_t extent = loops_.extents[static_cast<std::size_t>(along_x_)];
    const std::int64_t groups = (extent + kSide - 1) / kSide;
    const std::int64_t below = y_stride_ / inner;  // rows between neighbours along x
    const std::int64_t tasks = elements_ / (inner * extent) * groups;
    parallel_for(tasks, std::max<std::int64_t>(1, kGrain / (inner * kSide)),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t task = begin; task < end; ++task) {
                     const std::int64_t other = task / groups, first = task % groups * kSide;
                     const std::int64_t row =
                         (other / below * extent + first) * below + other % below;
                     square(x + loops_.row_offsets(row)[0], stride, y + row * inner,
                            std::min(kSide, extent - first), inner);
                   }
                 });
  }

  void square(const T* x, std::int64_t stride, T* y, std::int64_t rows, std::int64_t inner) const {
    for (std::int64_t column = 0; column < inner; column += kSide) {
      const std::int64_t end = std::min(inner, column + kSide);
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t i = column; i < end; ++i) y[r * y_stride_ + i] = x[r + i * stride];
      }
    }
  }

  Loops<1> loops_;
  std::int64_t elements_ = 1;
  int along_x_ = -1;           // the loop along which neighbours are neighbours in x
  std::int64_t y_stride_ = 1;  // elements of y that this loop moves
};

std::unique_ptr<Kernel> make_gather(DType dtype, const Loops<1>& loops) {
  switch (size_of(dtype)) {
    case 1:
      return std::make_unique<Gather<std::uint8_t>>(merged(loops));
    case 2:
      return std::make_unique<Gather<std::uint16_t>>(merged(loops));
    case 4:
      return std::make_unique<Gather<std::uint32_t>>(merged(loops));
    default:
      return std::make_unique<Gather<std::uint64_t>>(merged(loops));
  }
}

const RegisterKernelRule broadcast_to{{
    .op = "broadcast_to",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const Shape& to = s.outputs[0].type.shape;
      return make_gather(s.outputs[0].type.dtype,
                         {to.dims(), {broadcast_strides(s.inputs[0].type.shape, to)}});
    },
}};

const RegisterKernelRule transpose{{
    .op = "transpose",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const std::vector<std::int64_t> of_x = s.inputs[0].type.shape.row_major_strides();
      std::vector<std::int64_t> strides;
      for (const std::int64_t dim : s.node.attributes.integers("permutation")) {
        strides.push_back(of_x[static_cast<std::size_t>(dim)]);
      }
      return make_gather(s.outputs[0].type.dtype, {s.outputs[0].type.shape.dims(), {strides}});
    },
}};

// Copies between operands: input and output number i, or the only one there is.
class BlockCopies final : public Kernel {
 public:
  BlockCopies(const Signature& s, std::vector<BlockCopy> copies)
      : inputs_(s.inputs.size()), outputs_(s.outputs.size()), copies_(std::move(copies)) {}
  void run(std::span<std::byte* const> operands) override {
    for (std::size_t i = 0; i < copies_.size(); ++i) {
      copies_[i].run(operands[std::min(i, inputs_ - 1)],
                     operands[inputs_ + std::min(i, outputs_ - 1)]);
    }
  }

 private:
  std::size_t inputs_, outputs_;
  std::vector<BlockCopy> copies_;
};

const RegisterKernelRule concat{{
    .op = "concat",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const std::int64_t dim = s.node.attributes.integer("dim");
      const AroundDim to(s.outputs[0].type, dim);
      std::vector<BlockCopy> copies;
      std::int64_t offset = 0;
      for (const Operand& input : s.inputs) {
        const AroundDim from(input.type, dim);
        copies.push_back({to.rows, from.bytes, 0, from.bytes, offset, to.bytes});
        offset += from.bytes;
      }
      return std::make_unique<BlockCopies>(s, std::move(copies));
    },
}};

const RegisterKernelRule split{{
    .op = "split",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const std::int64_t dim = s.node.attributes.integer("dim");
      const AroundDim from(s.inputs[0].type, dim);
      std::vector<BlockCopy> copies;
      std::int64_t offset = 0;
      for (const Operand& output : s.outputs) {
        const AroundDim to(output.type, dim);
        copies.push_back({from.rows, to.bytes, offset, from.bytes, 0, to.bytes});
        offset += to.bytes;
      }
      return std::make_unique<BlockCopies>(s, std::move(copies));
    },
}};

const RegisterKernelRule slice{{
    .op = "slice",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const std::int64_t dim = s.node.attributes.integer("dim");
      const AroundDim from(s.inputs[0].type, dim), to(s.outputs[0].type, dim);
      const std::int64_t begin = s.node.attributes.integer("begin") * from.index_bytes;
      return std::make_unique<BlockCopies>(
          s, std::vector<BlockCopy>{{to.rows, to.bytes, begin, from.bytes, 0, to.bytes}});
    },
}};

class PadSlice final : public Kernel {
 public:
  PadSlice(BlockCopy copy, std::int64_t bytes) : copy_(copy), bytes_(bytes) {}
  void run(std::span<std::byte* const> operands) override {
    parallel_for(bytes_, 4 * kGrain, [&](std::int64_t begin, std::int64_t end) {
      std::memset(operands[1] + begin, 0, static_cast<std::size_t>(end - begin));
    });
    copy_.run(operands[0], operands[1]);
  }

 private:
  BlockCopy copy_;
  std::int64_t bytes_;
};

const RegisterKernelRule pad_slice{{
    .op = "pad_slice",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const std::int64_t dim = s.node.attributes.integer("dim");
      const AroundDim from(s.inputs[0].type, dim), to(s.outputs[0].type, dim);
      return std::make_unique<PadSlice>(
          BlockCopy{to.rows, from.bytes, 0, from.bytes,
                    s.node.attributes.integer("begin") * to.index_bytes, to.bytes},
          static_cast<std::int64_t>(s.outputs[0].type.bytes()));
    },
}};

class DynamicSlice final : public Kernel {
 public:
  explicit DynamicSlice(const Signature& s)
      : from_(s.inputs[0].type, s.node.attributes.integer("dim")),
        to_(s.outputs[0].type, s.node.attributes.integer("dim")) {}
  void run(std::span<std::byte* const> operands) override {
    const std::int64_t start = *as<std::int64_t>(operands[1]);
    ops::expect_inside(start, to_.extent, from_.extent);
    BlockCopy{to_.rows, to_.bytes, start * from_.index_bytes, from_.bytes, 0, to_.bytes}.run(
        operands[0], operands[2]);
  }

 private:
  AroundDim from_, to_;
};

const RegisterKernelRule dynamic_slice{{
    .op = "dynamic_slice",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<DynamicSlice>(s);
    },
}};

class DynamicUpdateSlice final : public Kernel {
 public:
  explicit DynamicUpdateSlice(const Signature& s)
      : part_(s.inputs[1].type, s.node.attributes.integer("dim")),
        whole_(s.outputs[0].type, s.node.attributes.integer("dim")) {}
  void run(std::span<std::byte* const> operands) override {
    const std::int64_t start = *as<std::int64_t>(operands[2]);
    ops::expect_inside(start, part_.extent, whole_.extent);
    if (operands[3] != operands[0]) {
      BlockCopy{whole_.rows, whole_.bytes, 0, whole_.bytes, 0, whole_.bytes}.run(operands[0],
                                                                                 operands[3]);
    }
    BlockCopy{part_.rows, part_.bytes, 0, part_.bytes, start * whole_.index_bytes, whole_.bytes}
        .run(operands[1], operands[3]);
  }

 private:
  AroundDim part_, whole_;
};

const RegisterKernelRule dynamic_update_slice{{
    .op = "dynamic_update_slice",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<DynamicUpdateSlice>(s);
    },
    .in_place = [](const Signature&, std::size_t, std::size_t i) { return i == 0; },
}};

}  // namespace
}  // namespace concord::cpu

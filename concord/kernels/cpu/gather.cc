#include <algorithm>
#include <cstring>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/elementwise.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"

namespace concord::cpu {
namespace {

// x seen as [outer, extent of the dim, inner], y as [outer, count of indices, inner].
struct Picks {
  Picks(const Shape& x, const Shape& indices, const Attributes& attributes)
      : extent(x[static_cast<int>(attributes.integer("dim"))]),
        count(indices.elements()),
        from_end(attributes.integer("negative_from_end") != 0),
        first(attributes.has("first") ? attributes.integer("first") : 0),
        whole_extent(attributes.has("first") ? attributes.integer("whole_extent") : extent) {
    const std::int64_t dim = attributes.integer("dim");
    for (int d = 0; d < x.rank(); ++d) {
      if (d < dim) outer *= x[d];
      if (d > dim) inner *= x[d];
    }
  }

  static constexpr std::int64_t kOutside = -1;    // of the whole dim
  static constexpr std::int64_t kElsewhere = -2;  // in another part of it

  // Row of x, counted over all outer indices, that `index` picks, or what is said above.
  std::int64_t row(std::int64_t o, std::int64_t index) const {
    if (from_end && index < 0) index += whole_extent;
    if (index < 0 || index >= whole_extent) return kOutside;
    index -= first;
    return index >= 0 && index < extent ? o * extent + index : kElsewhere;
  }

  std::int64_t outer = 1, extent, count, inner = 1;
  bool from_end;
  std::int64_t first, whole_extent;  // of a part of the dim: its first index, and all there are
};

class Gather final : public Kernel {
 public:
  Gather(Picks picks, std::size_t element_bytes)
      : picks_(picks), row_bytes_(static_cast<std::size_t>(picks.inner) * element_bytes) {}

  void run(std::span<std::byte* const> operands) override {
    if (row_bytes_ == 0) return;
    const auto* indices = as<std::int32_t>(operands[1]);
    const auto bytes = static_cast<std::int64_t>(row_bytes_);
    parallel_for(picks_.outer * picks_.count, std::max<std::int64_t>(1, 4 * kGrain / bytes),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t i = begin; i < end; ++i) {
                     const auto row = picks_.row(i / picks_.count, indices[i % picks_.count]);
                     copy(operands[0], row, operands[2] + i * bytes);
                   }
                 });
  }

 private:
  // All bits set is a NaN in every floating type. Of several parts the first one tells of indices
  // that none has.
  void copy(const std::byte* x, std::int64_t row, std::byte* to) const {
    if (row >= 0) {
      std::memcpy(to, x + static_cast<std::size_t>(row) * row_bytes_, row_bytes_);
    } else {
      const bool is_nan = row == Picks::kOutside && picks_.first == 0;
      std::memset(to, is_nan ? 0xff : 0, row_bytes_);
    }
  }

  Picks picks_;
  std::size_t row_bytes_;
};

// Of dy of type T, in f32. Each thread adds up some columns of all rows, so that every element is
// summed by one thread, in the order of the indices.
template <typename T>
class GatherBackward final : public Kernel {
 public:
  explicit GatherBackward(Picks picks)
      : picks_(picks), strips_((picks.inner + kStrip - 1) / kStrip) {}

  void run(std::span<std::byte* const> operands) override {
    parallel_for(picks_.outer * picks_.extent * picks_.inner, kGrain,
                 [&](std::int64_t begin, std::int64_t end) {
                   std::fill(as<float>(operands[2]) + begin, as<float>(operands[2]) + end, 0.0f);
                 });
    const std::int64_t work = std::max<std::int64_t>(1, picks_.count * kStrip);
    parallel_for(picks_.outer * strips_, std::max<std::int64_t>(1, kGrain / work),
                 [&](std::int64_t begin, std::int64_t end) {
                   while (begin < end) {
                     const std::int64_t o = begin / strips_, strip = begin % strips_;
                     const std::int64_t strips = std::min(end - begin, strips_ - strip);
                     add(operands, o, strip * kStrip,
                         std::min(picks_.inner, (strip + strips) * kStrip));
                     begin += strips;
                   }
                 });
  }

 private:
  static constexpr std::int64_t kStrip = 16;  // columns, a cache line

  void add(std::span<std::byte* const> operands, std::int64_t o, std::int64_t begin,
           std::int64_t end) const {
    const T* dy = as<T>(operands[0]) + o * picks_.count * picks_.inner;
    const auto* indices = as<std::int32_t>(operands[1]);
    for (std::int64_t i = 0; i < picks_.count; ++i) {
      const std::int64_t row = picks_.row(o, indices[i]);
      if (row < 0) continue;
      float* sum = as<float>(operands[2]) + row * picks_.inner + begin;
      add_to(sum, dy + i * picks_.inner + begin, end - begin);
    }
  }

  Picks picks_;
  std::int64_t strips_;
};

const RegisterKernelRule gather{{
    .op = "gather",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      const TensorType& x = s.inputs[0].type;
      return std::make_unique<Gather>(Picks(x.shape, s.inputs[1].type.shape, s.node.attributes),
                                      size_of(x.dtype));
    },
}};

const RegisterKernelRule gather_backward{{
    .op = "gather_backward",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return with_float_type(s.inputs[0].type.dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
        return std::make_unique<GatherBackward<decltype(zero)>>(
            Picks(s.outputs[0].type.shape, s.inputs[1].type.shape, s.node.attributes));
      });
    },
}};

}  // namespace
}  // namespace concord::cpu

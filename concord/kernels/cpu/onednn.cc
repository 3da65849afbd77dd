#include "concord/kernels/cpu/onednn.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "concord/base/error.h"

namespace concord::cpu::onednn {
namespace {

// dims of `shape` as oneDNN groups them.
dnnl::memory::dims grouped_dims(const Shape& shape, std::int64_t groups) {
  dnnl::memory::dims dims = shape.dims();
  if (groups > 1) {
    dims[0] /= groups;
    dims.insert(dims.begin(), groups);
  }
  return dims;
}

// Merges the leading dims [groups, O/groups] into one; nullopt when no single stride steps through
// both.
std::optional<BlockedFormat> merge_groups(BlockedFormat f) {
  bool groups_blocked = false;
  std::int64_t tile = 1;  // of the channels
  for (const Layout::Block& block : f.blocks) {
    groups_blocked = groups_blocked || block.dim == 0;
    tile *= block.dim == 1 ? block.size : 1;
  }
  std::size_t dropped;
  if (f.padded[1] == 1) {  // depthwise: the group is the channel
    dropped = 1;
  } else if (!groups_blocked && f.padded[1] == f.dims[1] &&
             f.strides[0] == f.strides[1] * (f.dims[1] / tile)) {
    f.padded[1] *= f.dims[0];
    f.dims[1] *= f.dims[0];
    dropped = 0;
  } else {
    return std::nullopt;
  }
  const auto at = static_cast<std::ptrdiff_t>(dropped);
  f.dims.erase(f.dims.begin() + at);
  f.padded.erase(f.padded.begin() + at);
  f.strides.erase(f.strides.begin() + at);
  for (Layout::Block& block : f.blocks) block.dim = std::max(0, block.dim - 1);
  return f;
}

// oneDNN says a blocked format by a tag only: the first that gives this layout, remembered by what
// the layout prints as. (Extents can make two tags equal, hence the check.)
MemoryDesc find_tagged(const Operand& operand, std::int64_t groups) {
  static std::mutex mutex;
  static std::map<std::string, int> tags;
  const Shape& shape = operand.type.shape;
  const dnnl::memory::dims dims = grouped_dims(shape, groups);
  const auto with_tag = [&](int tag) -> std::optional<MemoryDesc> {
    std::optional<MemoryDesc> desc = tagged_desc(dims, data_type(operand.type.dtype),
                                                 static_cast<dnnl::memory::format_tag>(tag));
    if (desc && layout_of(*desc, shape) != operand.layout) desc.reset();
    return desc;
  };
  const std::string key = fmt::format("{} {}", dims.size(), to_string(operand.layout));
  const std::scoped_lock lock(mutex);
  if (const auto known = tags.find(key); known != tags.end()) {
    if (const auto desc = with_tag(known->second)) return *desc;
  }
  for (int tag = dnnl_format_tag_any + 1; tag < dnnl_format_tag_last; ++tag) {
    const auto desc = with_tag(tag);
    if (!desc) continue;
    tags[key] = tag;
    return *desc;
  }
  fail("oneDNN has no memory format for {} in layout {}", to_string(operand.type),
       to_string(operand.layout));
}

}  // namespace

dnnl::memory::data_type data_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return dnnl::memory::data_type::f32;
    case DType::kBF16:
      return dnnl::memory::data_type::bf16;
    case DType::kI32:
      return dnnl::memory::data_type::s32;
    case DType::kU8:
      return dnnl::memory::data_type::u8;
    default:
      fail("oneDNN kernels cannot hold elements of type {}", to_string(dtype));
  }
}

MemoryDesc any_layout(const TensorType& type, std::int64_t groups) {
  return MemoryDesc(grouped_dims(type.shape, groups), data_type(type.dtype),
                    dnnl::memory::format_tag::any);
}

MemoryDesc describe(const Operand& operand, std::int64_t groups) {
  if (!operand.layout.blocks().empty()) return find_tagged(operand, groups);
  const Shape& shape = operand.type.shape;
  dnnl::memory::dims strides =
      operand.layout.is_row_major() ? shape.row_major_strides() : operand.layout.strides();
  if (groups > 1) strides.insert(strides.begin(), strides[0] * (shape[0] / groups));
  return MemoryDesc(grouped_dims(shape, groups), data_type(operand.type.dtype), strides);
}

MemoryDesc matrices(const TensorType& type, bool transposed) {
  const Shape& shape = type.shape;
  dnnl::memory::dims dims = {shape[-2], shape[-1]};
  dnnl::memory::dims strides = {shape[-1], 1};
  if (transposed) {
    std::swap(dims[0], dims[1]);
    std::swap(strides[0], strides[1]);
  }
  if (shape.rank() > 2) {
    const std::int64_t matrix = shape[-2] * shape[-1];
    dims.insert(dims.begin(), shape.elements() / matrix);
    strides.insert(strides.begin(), matrix);
  }
  return {dims, data_type(type.dtype), strides};
}

std::optional<Layout> layout_of(const MemoryDesc& desc, const Shape& shape) {
  std::optional<BlockedFormat> format = blocked_format(desc);
  if (format && format->dims.size() > shape.dims().size()) format = merge_groups(*format);
  if (!format) return std::nullopt;
  return Layout(shape, format->strides, format->padded, format->blocks);
}

Layout image_layout(const TensorType& type) {
  if (type.shape.rank() != 4) return {};
  const MemoryDesc images = any_layout(type);
  const std::int64_t channels = type.shape[1];
  const ops::Window2d window{.kernel = {3, 3}, .padding = {1, 1}};
  const MemoryDesc weights = any_layout({type.dtype, {channels, channels, 3, 3}});
  const PrimitiveDesc desc = convolution_forward(
      {dnnl::algorithm::convolution_direct, images, weights, images, std::nullopt, window});
  if (!desc) return {};
  return layout_of(desc.query_md(dnnl::query::dst_md), type.shape).value_or(Layout());
}

Layout follow(std::span<const std::optional<Layout>> given, const TensorType& type) {
  bool any_given = false;
  const auto is_of_samples = [](const Layout::Block& block) { return block.dim == 0; };
  for (const std::optional<Layout>& layout : given) {
    any_given = any_given || layout.has_value();
    if (!layout || layout->is_row_major()) continue;
    if (std::ranges::none_of(layout->blocks(), is_of_samples)) return *layout;
  }
  return any_given ? Layout() : image_layout(type);
}

Execution::Execution(const PrimitiveDesc& desc, const std::vector<int>& arguments)
    : primitive_(desc.get()) {
  const auto bind = [&](int argument, std::size_t pointer, const MemoryDesc& memory_desc) {
    bound_.push_back({pointer, dnnl::memory(memory_desc, cpu_engine(), nullptr), nullptr});
    arguments_.push_back({argument, bound_.back().memory.get()});
  };
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] != 0) {
      bind(arguments[i], i, desc.query_md(dnnl::query::exec_arg_md, arguments[i]));
    }
  }
  const MemoryDesc scratchpad = desc.query_md(dnnl::query::scratchpad_md);
  scratchpad_bytes_ = scratchpad.get_size();
  if (scratchpad_bytes_ > 0) bind(DNNL_ARG_SCRATCHPAD, arguments.size(), scratchpad);
}

void Execution::run(std::span<std::byte* const> pointers) {
  for (Bound& bound : bound_) {
    // Only where it changed: oneDNN 2 writes zeros to the padding when it is told a new place.
    if (bound.data == pointers[bound.pointer]) continue;
    bound.data = pointers[bound.pointer];
    dnnl_memory_set_data_handle(bound.memory.get(), bound.data);
  }
  const dnnl_status_t status = dnnl_primitive_execute(
      primitive_.get(), cpu_stream().get(), static_cast<int>(arguments_.size()), arguments_.data());
  CONCORD_CHECK(status == dnnl_success, "oneDNN status {}", static_cast<int>(status));
}

}  // namespace concord::cpu::onednn

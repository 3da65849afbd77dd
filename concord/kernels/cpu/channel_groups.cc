#include "concord/kernels/cpu/channel_groups.h"

#include <utility>

#include "concord/kernels/cpu/onednn.h"

namespace concord::cpu {

std::optional<ChannelGroups> ChannelGroups::of(const Operand& operand) {
  constexpr std::int64_t kWidth = 16;  // of channels-last images: a vector of AVX-512
  constexpr std::int64_t kMostParts = 16;
  constexpr std::int64_t kCached = 1 << 20;  // elements of each operand
  const Shape& shape = operand.type.shape;
  const Layout& layout = operand.layout;
  ChannelGroups result;
  result.channels_ = shape[1];
  result.width_ = result.group_stride_ = kWidth;
  result.images_ = shape[0];
  result.pixels_ = shape.elements() / (shape[0] * shape[1]);
  if (layout.is_row_major()) {
    if (result.channels_ != 1 && result.pixels_ != 1) return std::nullopt;
    result.pixel_stride_ = result.channels_;
    result.image_stride_ = result.channels_ * result.pixels_;
  } else {
    result.image_stride_ = layout.strides()[0];
    result.pixel_stride_ = layout.strides()[3];
    if (layout.strides()[2] != shape[3] * layout.strides()[3]) return std::nullopt;
    if (layout.blocks().empty()) {
      if (layout.strides()[1] != 1) return std::nullopt;
    } else {
      if (layout.blocks().size() != 1 || layout.blocks()[0].dim != 1) return std::nullopt;
      result.channels_ = layout.padded()[1];
      result.width_ = layout.blocks()[0].size;
      result.group_stride_ = layout.strides()[1];
    }
  }
  if (result.image_stride_ == result.pixels_ * result.pixel_stride_) {  // images follow as one
    result.pixels_ *= std::exchange(result.images_, 1);
  }
  result.groups_ = (result.channels_ + result.width_ - 1) / result.width_;
  const std::int64_t of_group = result.pixels() * result.width_;
  result.parts_ = std::clamp<std::int64_t>(of_group / kGrain, 1, kMostParts);
  result.at_once_ = std::max<std::int64_t>(1, kCached / of_group);
  return result;
}

Layout layout_by_channels(const TensorType& type, std::span<const std::optional<Layout>> given) {
  const auto suits = [&](const std::optional<Layout>& layout) {
    return layout && ChannelGroups::of({type, *layout});
  };
  const auto found = std::ranges::find_if(given, suits);
  if (found != given.end()) return **found;
  const Layout preferred = onednn::image_layout(type);
  if (suits(preferred)) return preferred;
  const Shape& shape = type.shape;  // of a few channels: channels-last
  return Layout(shape, {shape[1] * shape[2] * shape[3], 1, shape[1] * shape[3], shape[1]},
                shape.dims(), {});
}

}  // namespace concord::cpu

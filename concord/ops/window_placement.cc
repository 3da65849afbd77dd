#include "concord/ops/window_placement.h"

#include <algorithm>

namespace concord::ops {

std::optional<Halo> halo_of(const Window2d& window, const Shape& x, const Shape& y, int dim,
                            int ranks) {
  const auto d = static_cast<std::size_t>(dim - 2);
  const std::int64_t stride = window.stride[d], padding = window.padding[d];
  const std::int64_t reach = (window.kernel[d] - 1) * window.dilation[d] + 1;
  if (x[dim] != stride * y[dim] || y[dim] % ranks != 0 || padding >= reach) return std::nullopt;
  const Halo halo{padding, std::max<std::int64_t>(0, reach - padding - stride)};
  if (std::max(halo.before, halo.after) > x[dim] / ranks) return std::nullopt;
  return halo;
}

double halo_bytes(const TensorType& x, int dim, const Halo& halo) {
  return static_cast<double>(halo.before + halo.after) * static_cast<double>(x.bytes()) /
         static_cast<double>(x.shape[dim]);
}

Attributes with_extent(Attributes attributes, std::string_view name, int dim, std::int64_t extent) {
  std::vector<std::int64_t> extents = attributes.integers(name);
  extents[static_cast<std::size_t>(dim - 2)] = extent;
  attributes.set(name, std::move(extents));
  return attributes;
}

}  // namespace concord::ops

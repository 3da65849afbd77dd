// A window that slides over the two spatial dims of [N, C, H, W]: what convolution and pooling
// share.
#pragma once

#include <array>
#include <cstdint>

#include "concord/graph/graph.h"

namespace concord::ops {

using Extent2d = std::array<std::int64_t, 2>;  // along H and W

struct Window2d {
  Extent2d kernel{1, 1};
  Extent2d stride{1, 1};
  Extent2d padding{0, 0};  // zeros (pooling: nothing) on both sides
  Extent2d dilation{1, 1};

  // From the attributes "stride", "padding" and, where the op has them, "kernel" and "dilation".
  static Window2d of(const Node& node);
  // Positions of the window along H and W of an input of this size. Throws Error when an option is
  // out of range or the window does not fit.
  Extent2d positions(const Extent2d& size) const;
};

std::vector<std::int64_t> to_attribute(const Extent2d& extent);
Extent2d extent_attribute(const Node& node, std::string_view name);
// H and W of [N, C, H, W].
Extent2d spatial_size(const Shape& shape);
// Throws Error unless `type` is floating point and has the four dims [N, C, H, W].
void expect_images(const TensorType& type, std::string_view what);

}  // namespace concord::ops

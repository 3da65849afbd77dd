#include "concord/ops/window.h"

#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

constexpr std::int64_t kLargest = INT32_MAX;  // so that no product or sum below overflows

void expect_range(const Extent2d& extent, std::int64_t smallest, std::string_view what) {
  for (const std::int64_t value : extent) {
    if (value < smallest || value > kLargest) {
      fail("{} is [{}, {}]; expected at least {}", what, extent[0], extent[1], smallest);
    }
  }
}

}  // namespace

Window2d Window2d::of(const Node& node) {
  Window2d window;
  window.stride = extent_attribute(node, "stride");
  window.padding = extent_attribute(node, "padding");
  if (node.attributes.has("kernel")) window.kernel = extent_attribute(node, "kernel");
  if (node.attributes.has("dilation")) window.dilation = extent_attribute(node, "dilation");
  return window;
}

Extent2d Window2d::positions(const Extent2d& size) const {
  expect_range(size, 1, "the input's height and width");
  expect_range(kernel, 1, "the kernel");
  expect_range(stride, 1, "the stride");
  expect_range(padding, 0, "the padding");
  expect_range(dilation, 1, "the dilation");
  Extent2d result;
  for (std::size_t d = 0; d < 2; ++d) {
    const std::int64_t reach = (kernel[d] - 1) * dilation[d] + 1;
    const std::int64_t room = size[d] + 2 * padding[d] - reach;
    if (room < 0) {
      fail("a window {} {} does not fit into {} with padding {} on both sides", reach,
           d == 0 ? "high" : "wide", size[d], padding[d]);
    }
    result[d] = room / stride[d] + 1;
  }
  return result;
}

std::vector<std::int64_t> to_attribute(const Extent2d& extent) { return {extent[0], extent[1]}; }

Extent2d extent_attribute(const Node& node, std::string_view name) {
  const std::vector<std::int64_t>& values = node.attributes.integers(name);
  CONCORD_CHECK(values.size() == 2, "{} of {}", name, node.op);
  return {values[0], values[1]};
}

Extent2d spatial_size(const Shape& shape) { return {shape[2], shape[3]}; }

void expect_images(const TensorType& type, std::string_view what) {
  expect_floating(type, what);
  if (type.shape.rank() != 4) fail("{} is {}; expected [N, C, H, W]", what, to_string(type.shape));
}

}  // namespace concord::ops

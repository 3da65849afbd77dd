#include "concord/ops/pooling.h"

#include "concord/ops/arithmetic.h"
#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"
#include "concord/ops/window.h"
#include "concord/ops/window_placement.h"

namespace concord::ops {
namespace {

Shape pooled(const Node& node, std::span<const TensorType> inputs) {
  expect_inputs(inputs, 1);
  expect_images(inputs[0], "the input");
  const Window2d window = Window2d::of(node);
  const Extent2d y = window.positions(spatial_size(inputs[0].shape));
  for (std::size_t d = 0; d < 2; ++d) {
    if (window.padding[d] >= window.kernel[d]) {
      fail("padding [{}, {}] must be smaller than the kernel [{}, {}]: a window would be empty",
           window.padding[0], window.padding[1], window.kernel[0], window.kernel[1]);
    }
  }
  return {inputs[0].shape[0], inputs[0].shape[1], y[0], y[1]};
}

// The gradient has the channels of dy and the height and width of x, which "input_size" holds.
std::vector<TensorType> infer_backward(const Node& node, std::span<const TensorType> inputs) {
  expect_images(inputs[0], "the output gradient");
  const Extent2d size = extent_attribute(node, "input_size");
  const Shape& dy = inputs[0].shape;
  return {{inputs[0].dtype, {dy[0], dy[1], size[0], size[1]}}};
}

Cost cost(const Node& node, std::span<const TensorType>, std::span<const TensorType> outputs) {
  const Window2d window = Window2d::of(node);
  return {static_cast<double>(outputs[0].shape.elements() * window.kernel[0] * window.kernel[1])};
}

Cost backward_cost(const Node& node, std::span<const TensorType> inputs,
                   std::span<const TensorType>) {
  return cost(node, {}, inputs);
}

bool is_of_whole_image(const Node& node, const Shape& x) {
  const Window2d window = Window2d::of(node);
  return window.kernel == spatial_size(x) && window.padding == Extent2d{0, 0};
}

double share_of_image(const Extent2d& part, const Shape& whole) {
  return static_cast<double>(part[0] * part[1]) / static_cast<double>(whole[2] * whole[3]);
}

// Samples and channels are pooled by themselves. So are strips of the image that no window crosses.
// `x` and `y`: operands that have the size of x, and all that have that of y.
Signatures divisions(const PlacementContext& context, std::size_t x,
                     const std::vector<std::size_t>& like_y, const Shape& of_x, const Shape& of_y) {
  Signatures found;
  for (int dim = 0; dim < 4; ++dim) {
    if (dim >= 2) {
      const auto halo = halo_of(Window2d::of(context.node), of_x, of_y, dim, context.ranks);
      if (!halo || halo->before > 0 || halo->after > 0) continue;
    }
    std::vector<std::pair<std::size_t, int>> cut = {{x, dim}};
    for (const std::size_t y : like_y) cut.emplace_back(y, dim);
    add_splits(found, context, cut);
  }
  return found;
}

Signatures divisions(const PlacementContext& context) {
  std::vector<std::size_t> like_y;
  for (std::size_t o = 0; o < context.outputs.size(); ++o) like_y.push_back(context.of_output(o));
  return divisions(context, 0, like_y, context.input(0), context.output(0));
}

Signatures backward_divisions(const PlacementContext& context) {
  std::vector<std::size_t> like_y;
  for (std::size_t i = 0; i < context.inputs.size(); ++i) like_y.push_back(i);
  return divisions(context, context.of_output(0), like_y, context.output(0), context.input(0));
}

// Of a window that is the whole image, a rank's strip gives a summand: its own mean, at its share.
Signatures mean_divisions(const PlacementContext& context) {
  Signatures found = divisions(context);
  if (is_of_whole_image(context.node, context.input(0))) {
    for (const int dim : {2, 3}) add_splits(found, context, {{0, dim}}, {context.of_output(0)});
  }
  return found;
}

Signatures mean_backward_divisions(const PlacementContext& context) {
  Signatures found = backward_divisions(context);
  if (is_of_whole_image(context.node, context.output(0))) {
    for (const int dim : {2, 3}) add_splits(found, context, {{context.of_output(0), dim}});
  }
  return found;
}

// The height and width of x in a backward op are those of the rank's part.
std::vector<ValueId> localize_backward(LocalContext& context) {
  Attributes attributes = context.node.attributes;
  const Extent2d size = spatial_size(local_output_shape(context));
  attributes.set("input_size", to_attribute(size));
  if (context.node.op != "avg_pool2d_backward" ||
      !is_of_whole_image(context.node, context.outputs[0].shape)) {
    return context.builder.node(context.node.op, context.local_inputs, std::move(attributes));
  }
  attributes.set("kernel", to_attribute(size));
  const ValueId dx =
      context.builder.node1(context.node.op, context.local_inputs, std::move(attributes));
  return {scale(context.builder, dx, share_of_image(size, context.outputs[0].shape))};
}

std::vector<ValueId> localize_mean(LocalContext& context) {
  const Shape& x = context.inputs[0].shape;
  if (!is_of_whole_image(context.node, x)) {
    return context.builder.node(context.node.op, context.local_inputs, context.node.attributes);
  }
  const Extent2d size = spatial_size(context.builder.shape(context.local_inputs[0]));
  Attributes attributes = context.node.attributes;
  attributes.set("kernel", to_attribute(size));
  const ValueId y =
      context.builder.node1(context.node.op, context.local_inputs, std::move(attributes));
  return {scale(context.builder, y, share_of_image(size, x))};
}

Attributes backward_attributes(const GradientContext& context) {
  Attributes attributes = context.node.attributes;
  attributes.set("input_size", to_attribute(spatial_size(context.builder.shape(context.input(0)))));
  return attributes;
}

// Attributes: kernel, stride, padding. Outputs: y, index.
const RegisterOp max_pool2d_op{{
    .name = "max_pool2d",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      const Shape y = pooled(node, inputs);
      const Extent2d kernel = Window2d::of(node).kernel;
      return {{inputs[0].dtype, y}, {kernel[0] * kernel[1] <= 255 ? DType::kU8 : DType::kI32, y}};
    },
    // Only the maximum of a window moves y, so it takes the whole gradient.
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      return {context.builder.node1("max_pool2d_backward",
                                    {context.output_gradient(0), context.output(1)},
                                    backward_attributes(context))};
    },
    .cost = cost,
    .bf16 = follows_bf16(),
    .signatures = divisions,
}};

// Inputs: dy, index. Attributes: those of max_pool2d and "input_size", the H and W of x.
const RegisterOp max_pool2d_backward_op{{
    .name = "max_pool2d_backward",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      return infer_backward(node, inputs);
    },
    .bf16 = follows_bf16(),
    .signatures = backward_divisions,
    .localize = localize_backward,
}};

// Attributes: kernel, stride, padding, count_include_pad.
const RegisterOp avg_pool2d_op{{
    .name = "avg_pool2d",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      return {{inputs[0].dtype, pooled(node, inputs)}};
    },
    // Each of the k elements of a mean takes 1/k of the gradient.
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      return {context.builder.node1("avg_pool2d_backward", {context.output_gradient(0)},
                                    backward_attributes(context))};
    },
    .cost = cost,
    .bf16 = follows_bf16(),
    .signatures = mean_divisions,
    .localize = localize_mean,
}};

// Inputs: dy. Attributes: those of avg_pool2d and "input_size".
const RegisterOp avg_pool2d_backward_op{{
    .name = "avg_pool2d_backward",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      return infer_backward(node, inputs);
    },
    .cost = backward_cost,
    .bf16 = follows_bf16(),
    .signatures = mean_backward_divisions,
    .localize = localize_backward,
}};

Attributes attributes_of(const Pool2dOptions& options) {
  return {{"kernel", to_attribute(options.kernel)},
          {"stride", to_attribute(options.stride)},
          {"padding", to_attribute(options.padding)}};
}

}  // namespace

ValueId max_pool2d(GraphBuilder& builder, ValueId x, const Pool2dOptions& options) {
  return builder.node("max_pool2d", {x}, attributes_of(options))[0];
}

ValueId avg_pool2d(GraphBuilder& builder, ValueId x, const Pool2dOptions& options,
                   bool count_include_pad) {
  Attributes attributes = attributes_of(options);
  attributes.set("count_include_pad", std::int64_t{count_include_pad});
  return builder.node1("avg_pool2d", {x}, std::move(attributes));
}

ValueId global_average_pool(GraphBuilder& builder, ValueId x) {
  const Shape shape = builder.shape(x);
  if (shape.rank() != 4) {
    fail("global average pooling is given {}; expected [N, C, H, W]", to_string(shape));
  }
  return avg_pool2d(builder, x, {.kernel = spatial_size(shape)});
}

}  // namespace concord::ops

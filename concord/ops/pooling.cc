#include "concord/ops/pooling.h"

#include "concord/ops/rules.h"
#include "concord/ops/window.h"

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
}};

// Inputs: dy, index. Attributes: those of max_pool2d and "input_size", the H and W of x.
const RegisterOp max_pool2d_backward_op{{
    .name = "max_pool2d_backward",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      return infer_backward(node, inputs);
    },
    .bf16 = follows_bf16(),
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

#include "concord/ops/convolution.h"

#include "concord/ops/rules.h"
#include "concord/ops/window.h"

namespace concord::ops {
namespace {

std::int64_t groups_of(const Node& node) { return node.attributes.integer("groups"); }

constexpr Bf16Form kProduct{.use = Bf16Form::Use::kAlways, .inputs = 0b11};

// Attributes: stride, padding, dilation, groups. Inputs: x, w and perhaps bias.
std::vector<TensorType> infer_forward(const Node& node, std::span<const TensorType> inputs) {
  if (inputs.size() != 3) expect_inputs(inputs, 2);
  expect_images(inputs[0], "the input");
  const Shape& x = inputs[0].shape;
  const Shape& w = inputs[1].shape;
  const std::int64_t groups = groups_of(node);
  if (w.rank() != 4 || inputs[1].dtype != inputs[0].dtype) {
    fail("the weights are {}; expected [O, I/groups, Kh, Kw] of {}", to_string(inputs[1]),
         to_string(inputs[0].dtype));
  }
  if (groups < 1 || x[1] % groups != 0 || w[0] % groups != 0) {
    fail("{} groups must divide the {} input channels and the {} output channels", groups, x[1],
         w[0]);
  }
  if (w[1] != x[1] / groups) {
    fail("the weights {} expect {} input channels{}; the input {} has {}", to_string(w),
         w[1] * groups, groups == 1 ? "" : fmt::format(" in {} groups", groups), to_string(x),
         x[1]);
  }
  if (inputs.size() == 3 && inputs[2].shape != Shape{w[0]}) {
    fail("the bias is {}; expected [{}]", to_string(inputs[2].shape), w[0]);
  }
  Window2d window = Window2d::of(node);
  window.kernel = spatial_size(w);
  const Extent2d y = window.positions(spatial_size(x));
  return {{inputs[0].dtype, {x[0], w[0], y[0], y[1]}}};
}

// Inputs: dy, w. Attributes: those of conv2d and "input_size", the H and W of x.
std::vector<TensorType> infer_backward_data(const Node& node, std::span<const TensorType> inputs) {
  expect_inputs(inputs, 2);
  expect_images(inputs[0], "the output gradient");
  const Extent2d size = extent_attribute(node, "input_size");
  return {{inputs[0].dtype,
           {inputs[0].shape[0], inputs[1].shape[1] * groups_of(node), size[0], size[1]}}};
}

// Inputs: x, dy. Attributes: those of conv2d, "kernel" (Kh, Kw), and "bias": 1 adds the output
// dbias. Outputs of bf16 inputs are f32.
std::vector<TensorType> infer_backward_weights(const Node& node,
                                               std::span<const TensorType> inputs) {
  expect_inputs(inputs, 2);
  expect_images(inputs[0], "the input");
  expect_images(inputs[1], "the output gradient");
  const Extent2d kernel = extent_attribute(node, "kernel");
  const std::int64_t o = inputs[1].shape[1];
  const std::int64_t i = inputs[0].shape[1] / groups_of(node);
  const DType dtype = sum_type(inputs[0].dtype);
  std::vector<TensorType> outputs = {{dtype, {o, i, kernel[0], kernel[1]}}};
  if (node.attributes.integer("bias") != 0) outputs.push_back({dtype, {o}});
  return outputs;
}

// One multiplication and one addition for each element of y and each weight that reaches it; the
// two backward products have as many.
double flops(const Shape& y, const Shape& w) {
  return 2.0 * static_cast<double>(y.elements()) * static_cast<double>(w[1] * w[2] * w[3]);
}

// dL/dx is dy spread back through w, dL/dw correlates x with dy, and dL/dbias sums dy over all but
// the channels (docs/backpropagation.md).
std::vector<ValueId> gradient(GradientContext& context) {
  GraphBuilder& b = context.builder;
  const ValueId x = context.input(0);
  const ValueId w = context.input(1);
  const ValueId dy = context.output_gradient(0);
  const bool has_bias = context.node.inputs.size() == 3;

  Attributes data = context.node.attributes;
  data.set("input_size", to_attribute(spatial_size(b.shape(x))));
  Attributes weights = context.node.attributes;
  weights.set("kernel", to_attribute(spatial_size(b.shape(w))));
  weights.set("bias", std::int64_t{has_bias});

  std::vector<ValueId> gradients = {b.node1("conv2d_backward_data", {dy, w}, std::move(data))};
  for (const ValueId id : b.node("conv2d_backward_weights", {x, dy}, std::move(weights))) {
    gradients.push_back(id);
  }
  return gradients;
}

const RegisterOp conv2d_op{{
    .name = "conv2d",
    .infer = infer_forward,
    .gradient = gradient,
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType> outputs) {
          return Cost{flops(outputs[0].shape, inputs[1].shape)};
        },
    .bf16 = kProduct,
}};

const RegisterOp backward_data_op{{
    .name = "conv2d_backward_data",
    .infer = infer_backward_data,
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
          return Cost{flops(inputs[0].shape, inputs[1].shape)};
        },
    .bf16 = kProduct,
}};

const RegisterOp backward_weights_op{{
    .name = "conv2d_backward_weights",
    .infer = infer_backward_weights,
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType> outputs) {
          return Cost{flops(inputs[1].shape, outputs[0].shape)};
        },
    .bf16 = kProduct,
}};

}  // namespace

ValueId conv2d(GraphBuilder& builder, ValueId x, ValueId w, const Conv2dOptions& options,
               ValueId bias) {
  std::vector<ValueId> inputs = {x, w};
  if (bias != kNoValue) inputs.push_back(bias);
  return builder.node1("conv2d", std::move(inputs),
                       {{"stride", to_attribute(options.stride)},
                        {"padding", to_attribute(options.padding)},
                        {"dilation", to_attribute(options.dilation)},
                        {"groups", options.groups}});
}

}  // namespace concord::ops

#include "concord/ops/convolution.h"

#include <algorithm>

#include "concord/ops/collective.h"
#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"
#include "concord/ops/window.h"
#include "concord/ops/window_placement.h"

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

// The window, from the attributes and the weights' shape.
Window2d window_of(const Node& node, const Shape& w) {
  Window2d window = Window2d::of(node);
  window.kernel = spatial_size(w);
  return window;
}

using Operands = std::vector<std::pair<std::size_t, int>>;  // and a dim of each

// The three products of a convolution divide its work in the same ways: by samples, by output or
// input channels, by groups of both, or by strips of the image. x, w, bias and y are operands
// (kNone: the product has none), and those that a division leaves out are `partial` then, or
// replicated.
constexpr std::size_t kNone = ~std::size_t{0};
struct Roles {
  std::size_t x, w, bias, y;
  enum class Result { kY, kX, kW } result;  // what the product computes
};

void divide(Signatures& found, const PlacementContext& context, const Operands& cut,
            std::size_t partial, std::size_t partial_bias = kNone) {
  Operands given;
  for (const auto& [operand, dim] : cut) {
    if (operand != kNone) given.emplace_back(operand, dim);
  }
  std::vector<std::size_t> summands;
  for (const std::size_t operand : {partial, partial_bias}) {
    if (operand != kNone) summands.push_back(operand);
  }
  add_splits(found, context, given, summands);
}

const TensorType& type_of(const PlacementContext& context, std::size_t operand) {
  return operand < context.inputs.size() ? context.inputs[operand]
                                         : context.outputs[operand - context.inputs.size()];
}

bool is_one_piece(const PlacementSignature& signature) {
  return std::ranges::all_of(signature.inputs, [](const Placement& placement) {
    return placement.sections == std::vector<std::int64_t>{1};
  });
}

Signatures divisions(const PlacementContext& context, const Roles& o, const Shape& x,
                     const Shape& w, const Shape& y) {
  using Result = Roles::Result;
  const bool gives_w = o.result == Result::kW;
  Signatures found;
  divide(found, context, {{o.x, 0}, {o.y, 0}}, gives_w ? o.w : kNone, gives_w ? o.bias : kNone);
  const std::int64_t groups = groups_of(context.node);
  if (groups == 1) {
    divide(found, context, {{o.w, 0}, {o.bias, 0}, {o.y, 1}}, o.result == Result::kX ? o.x : kNone);
    divide(found, context, {{o.x, 1}, {o.w, 1}}, o.result == Result::kY ? o.y : kNone,
           o.result == Result::kY ? o.bias : kNone);
  } else if (groups % context.ranks == 0) {
    divide(found, context, {{o.x, 1}, {o.w, 0}, {o.bias, 0}, {o.y, 1}}, kNone);
  }
  for (const int dim : {2, 3}) {
    const auto halo = halo_of(window_of(context.node, w), x, y, dim, context.ranks);
    if (!halo) continue;
    Signatures strips;
    divide(strips, context, {{o.x, dim}, {o.y, dim}}, gives_w ? o.w : kNone,
           gives_w ? o.bias : kNone);
    for (PlacementSignature& strip : strips) {
      if (!is_one_piece(strip)) continue;
      strip.bytes_sent = halo_bytes(type_of(context, o.x), dim, *halo);
      found.push_back(std::move(strip));
    }
  }
  return found;
}

// Along which dim of the image ranks have strips; 0: along none.
int strip_dim(const PlacementSignature& signature) {
  for (const Placement& placement : signature.inputs) {
    if (placement.is_split(2) || placement.is_split(3)) return placement.dim;
  }
  return 0;
}

// Where ranks have groups, they have as many fewer.
Attributes local_attributes(const LocalContext& context) {
  Attributes attributes = context.node.attributes;
  const std::int64_t groups = attributes.integer("groups");
  const auto channels = [](const Placement& placement) { return placement.is_split(1); };
  if (groups > 1 && std::ranges::any_of(context.signature.inputs, channels)) {
    attributes.set("groups", groups / context.axis.ranks);
  }
  return attributes;
}

// A strip with its halo has no padding of its own.
Attributes strip_attributes(const LocalContext& context, int dim) {
  return with_extent(context.node.attributes, "padding", dim, 0);
}

std::vector<ValueId> localize_forward(LocalContext& context) {
  GraphBuilder& builder = context.builder;
  std::vector<ValueId> inputs = context.local_inputs;
  const int dim = strip_dim(context.signature);
  if (dim == 0) return builder.node("conv2d", std::move(inputs), local_attributes(context));
  const Halo halo =
      halo_of(window_of(context.node, context.inputs[1].shape), context.inputs[0].shape,
              context.outputs[0].shape, dim, context.axis.ranks)
          .value();
  inputs[0] = halo_exchange(builder, inputs[0], context.axis, dim, halo.before, halo.after);
  return builder.node("conv2d", std::move(inputs), strip_attributes(context, dim));
}

std::vector<ValueId> localize_backward_data(LocalContext& context) {
  GraphBuilder& builder = context.builder;
  const int dim = strip_dim(context.signature);
  if (dim == 0) {
    return builder.node(context.node.op, context.local_inputs, local_attributes(context));
  }
  const Halo halo =
      halo_of(window_of(context.node, context.inputs[1].shape), context.outputs[0].shape,
              context.inputs[0].shape, dim, context.axis.ranks)
          .value();
  const std::int64_t own = context.outputs[0].shape[dim] / context.axis.ranks;
  const ValueId dx = builder.node1(context.node.op, context.local_inputs,
                                   with_extent(strip_attributes(context, dim), "input_size", dim,
                                               own + halo.before + halo.after));
  return {halo_sum(builder, dx, context.axis, dim, halo.before, halo.after)};
}

std::vector<ValueId> localize_backward_weights(LocalContext& context) {
  GraphBuilder& builder = context.builder;
  std::vector<ValueId> inputs = context.local_inputs;
  const int dim = strip_dim(context.signature);
  if (dim == 0) return builder.node(context.node.op, std::move(inputs), local_attributes(context));
  const Halo halo =
      halo_of(window_of(context.node, context.outputs[0].shape), context.inputs[0].shape,
              context.inputs[1].shape, dim, context.axis.ranks)
          .value();
  inputs[0] = halo_exchange(builder, inputs[0], context.axis, dim, halo.before, halo.after);
  return builder.node(context.node.op, std::move(inputs), strip_attributes(context, dim));
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
    .signatures = [](const PlacementContext& context) -> Signatures {
      const std::size_t bias = context.inputs.size() == 3 ? 2 : kNone;
      return divisions(
          context,
          {.x = 0, .w = 1, .bias = bias, .y = context.of_output(0), .result = Roles::Result::kY},
          context.input(0), context.input(1), context.output(0));
    },
    .localize = localize_forward,
}};

const RegisterOp backward_data_op{{
    .name = "conv2d_backward_data",
    .infer = infer_backward_data,
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
          return Cost{flops(inputs[0].shape, inputs[1].shape)};
        },
    .bf16 = kProduct,
    .signatures = [](const PlacementContext& context) -> Signatures {
      return divisions(
          context,
          {.x = context.of_output(0), .w = 1, .bias = kNone, .y = 0, .result = Roles::Result::kX},
          context.output(0), context.input(1), context.input(0));
    },
    .localize = localize_backward_data,
}};

const RegisterOp backward_weights_op{{
    .name = "conv2d_backward_weights",
    .infer = infer_backward_weights,
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType> outputs) {
          return Cost{flops(inputs[1].shape, outputs[0].shape)};
        },
    .bf16 = kProduct,
    .signatures = [](const PlacementContext& context) -> Signatures {
      const std::size_t bias = context.outputs.size() == 2 ? context.of_output(1) : kNone;
      return divisions(
          context,
          {.x = 0, .w = context.of_output(0), .bias = bias, .y = 1, .result = Roles::Result::kW},
          context.input(0), context.output(0), context.input(1));
    },
    .localize = localize_backward_weights,
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

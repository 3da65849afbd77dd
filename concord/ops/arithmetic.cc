#include "concord/ops/arithmetic.h"

#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

std::vector<TensorType> infer_binary(const Node&, std::span<const TensorType> inputs) {
  expect_inputs(inputs, 2);
  if (inputs[0].dtype != inputs[1].dtype) {
    fail("operands have different element types: {} and {}", to_string(inputs[0]),
         to_string(inputs[1]));
  }
  return {{inputs[0].dtype, broadcast(inputs[0].shape, inputs[1].shape)}};
}

// The product is linear in each factor, while the other is whole.
Signatures placed_product(const PlacementContext& context) {
  Signatures signatures = elementwise_linear_in_first(context);
  signatures.push_back({{Placement::replicate(), Placement::partial()}, {Placement::partial()}});
  return signatures;
}

// What is summed away may be split: then each rank has a summand.
Signatures placed_sum(const PlacementContext& context) {
  Signatures signatures = {all_partial(context)};
  const Shape &x = context.input(0), &y = context.output(0);
  const int stretched = x.rank() - y.rank();
  for (int d = 0; d < x.rank(); ++d) {
    const int own = d - stretched;
    if (own >= 0 && y[own] == x[d]) {
      add_splits(signatures, context, {{0, d}, {context.of_output(0), own}});
    } else {
      add_splits(signatures, context, {{0, d}}, {context.of_output(0)});
    }
  }
  return signatures;
}

Signatures placed_broadcast(const PlacementContext& context) {
  Signatures signatures = elementwise(context);
  signatures.push_back(all_partial(context));
  return signatures;
}

// y = a + b: dL/da = dL/dy and dL/db = dL/dy, each summed over the dims it was stretched along.
const RegisterOp add_op{{
    .name = "add",
    .infer = infer_binary,
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      GraphBuilder& b = context.builder;
      const ValueId dy = context.output_gradient(0);
      return {sum_to_shape(b, dy, b.shape(context.input(0))),
              sum_to_shape(b, dy, b.shape(context.input(1)))};
    },
    .bf16 = follows_bf16(2),
    .signatures = elementwise_linear,
}};

// y = a * b: dL/da = dL/dy * b and dL/db = dL/dy * a.
const RegisterOp mul_op{{
    .name = "mul",
    .infer = infer_binary,
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      GraphBuilder& b = context.builder;
      const ValueId dy = context.output_gradient(0);
      return {sum_to_shape(b, mul(b, dy, context.input(1)), b.shape(context.input(0))),
              sum_to_shape(b, mul(b, dy, context.input(0)), b.shape(context.input(1)))};
    },
    .bf16 = follows_bf16(2),
    .signatures = placed_product,
}};

// y = a - b: as add, with the second gradient negated.
const RegisterOp sub_op{{
    .name = "sub",
    .infer = infer_binary,
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      GraphBuilder& b = context.builder;
      const ValueId dy = context.output_gradient(0);
      return {sum_to_shape(b, dy, b.shape(context.input(0))),
              neg(b, sum_to_shape(b, dy, b.shape(context.input(1))))};
    },
    .bf16 = follows_bf16(2),
    .signatures = elementwise_linear,
}};

// y = a / b: dL/da = dL/dy / b and dL/db = -dL/dy * y / b.
const RegisterOp div_op{{
    .name = "div",
    .infer = infer_binary,
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      GraphBuilder& b = context.builder;
      const ValueId da = div(b, context.output_gradient(0), context.input(1));
      const ValueId db = mul(b, da, context.output(0));
      return {sum_to_shape(b, da, b.shape(context.input(0))),
              neg(b, sum_to_shape(b, db, b.shape(context.input(1))))};
    },
    .bf16 = follows_bf16(2),
    .signatures = elementwise_linear_in_first,
}};

const RegisterOp equal_op{
    {.name = "equal", .infer = infer_binary, .bf16 = follows_bf16(2), .signatures = elementwise}};

std::vector<TensorType> infer_unary(const Node&, std::span<const TensorType> inputs) {
  expect_inputs(inputs, 1);
  expect_floating(inputs[0], "the operand");
  return {inputs[0]};
}

const RegisterOp neg_op{{
    .name = "neg",
    .infer = infer_unary,
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      return {neg(context.builder, context.output_gradient(0))};
    },
    .bf16 = follows_bf16(),
    .signatures = elementwise_linear,
}};

// y = e^x: dL/dx = dL/dy * y.
const RegisterOp exp_op{{
    .name = "exp",
    .infer = infer_unary,
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      return {mul(context.builder, context.output_gradient(0), context.output(0))};
    },
    .bf16 = follows_bf16(),
    .signatures = elementwise,
}};

// y = ln x: dL/dx = dL/dy / x.
const RegisterOp log_op{{
    .name = "log",
    .infer = infer_unary,
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      return {div(context.builder, context.output_gradient(0), context.input(0))};
    },
    .bf16 = follows_bf16(),
    .signatures = elementwise,
}};

// y = sqrt x: dL/dx = dL/dy / (2 y).
const RegisterOp sqrt_op{{
    .name = "sqrt",
    .infer = infer_unary,
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      GraphBuilder& b = context.builder;
      return {scale(b, div(b, context.output_gradient(0), context.output(0)), 0.5)};
    },
    .bf16 = follows_bf16(),
    .signatures = elementwise,
}};

// y = x^2: dL/dx = 2 x * dL/dy.
const RegisterOp square_op{{
    .name = "square",
    .infer = infer_unary,
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      GraphBuilder& b = context.builder;
      return {scale(b, mul(b, context.output_gradient(0), context.input(0)), 2.0)};
    },
    .bf16 = follows_bf16(),
    .signatures = elementwise,
}};

// y = |x|: dL/dx = dL/dy * sign(x), 0 at 0.
const RegisterOp abs_op{{
    .name = "abs",
    .infer = infer_unary,
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      return {
          context.builder.node1("abs_backward", {context.output_gradient(0), context.input(0)})};
    },
    .bf16 = follows_bf16(),
    .signatures = elementwise,
}};

const RegisterOp abs_backward_op{{
    .name = "abs_backward",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      expect_same(inputs[0], inputs[1]);
      return {inputs[0]};
    },
    .bf16 = follows_bf16(2),
    .signatures = elementwise,
}};

// dL/dx = dL/dy where y = x, else 0.
const RegisterOp clamp_op{{
    .name = "clamp",
    .infer = infer_unary,
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      GraphBuilder& b = context.builder;
      return {mul(b, context.output_gradient(0), equal(b, context.input(0), context.output(0)))};
    },
    .bf16 = follows_bf16(),
    .signatures = elementwise,
}};

const RegisterOp scale_op{{
    .name = "scale",
    .infer = infer_unary,
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      return {scale(context.builder, context.output_gradient(0),
                    context.node.attributes.real("factor"))};
    },
    .bf16 = follows_bf16(),
    .signatures = elementwise_linear,
}};

// Output: the input's shape summed down to attribute "shape", which broadcasts to it; of bf16 in
// f32.
const RegisterOp sum_to_shape_op{{
    .name = "sum_to_shape",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      const Shape shape(node.attributes.integers("shape"));
      if (broadcast(shape, inputs[0].shape) != inputs[0].shape) {
        fail("{} cannot be summed to {}", to_string(inputs[0].shape), to_string(shape));
      }
      return {{sum_type(inputs[0].dtype), shape}};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      GraphBuilder& b = context.builder;
      return {broadcast_to(b, context.output_gradient(0), b.shape(context.input(0)))};
    },
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
          return Cost{static_cast<double>(inputs[0].shape.elements())};
        },
    .bf16 = follows_bf16(),
    .signatures = placed_sum,
    .localize = localize_shape,
}};

// Output: the input stretched to attribute "shape", which it broadcasts to.
const RegisterOp broadcast_to_op{{
    .name = "broadcast_to",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      const Shape shape(node.attributes.integers("shape"));
      if (broadcast(inputs[0].shape, shape) != shape) {
        fail("{} cannot be stretched to {}", to_string(inputs[0].shape), to_string(shape));
      }
      return {{inputs[0].dtype, shape}};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      GraphBuilder& b = context.builder;
      return {sum_to_shape(b, context.output_gradient(0), b.shape(context.input(0)))};
    },
    .bf16 = follows_bf16(),
    .signatures = placed_broadcast,
    .localize = localize_shape,
}};

}  // namespace

ValueId add(GraphBuilder& builder, ValueId a, ValueId b) { return builder.node1("add", {a, b}); }
ValueId sub(GraphBuilder& builder, ValueId a, ValueId b) { return builder.node1("sub", {a, b}); }
ValueId mul(GraphBuilder& builder, ValueId a, ValueId b) { return builder.node1("mul", {a, b}); }
ValueId div(GraphBuilder& builder, ValueId a, ValueId b) { return builder.node1("div", {a, b}); }
ValueId equal(GraphBuilder& builder, ValueId a, ValueId b) {
  return builder.node1("equal", {a, b});
}
ValueId neg(GraphBuilder& builder, ValueId x) { return builder.node1("neg", {x}); }
ValueId exp(GraphBuilder& builder, ValueId x) { return builder.node1("exp", {x}); }
ValueId log(GraphBuilder& builder, ValueId x) { return builder.node1("log", {x}); }
ValueId sqrt(GraphBuilder& builder, ValueId x) { return builder.node1("sqrt", {x}); }
ValueId square(GraphBuilder& builder, ValueId x) { return builder.node1("square", {x}); }
ValueId abs(GraphBuilder& builder, ValueId x) { return builder.node1("abs", {x}); }

ValueId clamp(GraphBuilder& builder, ValueId x, double low, double high) {
  if (!(low <= high)) fail("clamp: low = {} and high = {}: expected low <= high", low, high);
  return builder.node1("clamp", {x}, {{"low", low}, {"high", high}});
}

ValueId scale(GraphBuilder& builder, ValueId x, double factor) {
  return builder.node1("scale", {x}, {{"factor", factor}});
}

ValueId sum_to_shape(GraphBuilder& builder, ValueId gradient, const Shape& shape) {
  if (builder.shape(gradient) == shape) return gradient;
  return builder.node1("sum_to_shape", {gradient}, {{"shape", shape.dims()}});
}

ValueId broadcast_to(GraphBuilder& builder, ValueId x, const Shape& shape) {
  if (builder.shape(x) == shape) return x;
  return builder.node1("broadcast_to", {x}, {{"shape", shape.dims()}});
}

}  // namespace concord::ops

#include "concord/ops/matmul.h"

#include "concord/ops/arithmetic.h"
#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

struct Extents {
  std::int64_t rows, inner, columns;
};

Extents extents(const Node& node, std::span<const TensorType> inputs) {
  const Shape& a = inputs[0].shape;
  const Shape& b = inputs[1].shape;
  const bool ta = node.attributes.integer("transpose_a") != 0;
  const bool tb = node.attributes.integer("transpose_b") != 0;
  if (a.rank() < 2 || a.rank() != b.rank()) {
    fail("given {} and {}; expected two matrices, or two stacks of matrices of the same rank",
         to_string(a), to_string(b));
  }
  for (int d = 0; d + 2 < a.rank(); ++d) {
    if (a[d] != b[d]) fail("leading dims differ: {} and {}", to_string(a), to_string(b));
  }
  const std::int64_t inner_a = a[ta ? -2 : -1];
  const std::int64_t inner_b = b[tb ? -1 : -2];
  if (inner_a != inner_b) {
    fail("inner dims differ: {}{} has {}, {}{} has {}", to_string(a), ta ? " transposed" : "",
         inner_a, to_string(b), tb ? " transposed" : "", inner_b);
  }
  return {a[ta ? -1 : -2], inner_a, b[tb ? -2 : -1]};
}

// Attributes: transpose_a, transpose_b and, where it is not that of the matrices, output: the
// element type of the product.
std::vector<TensorType> infer(const Node& node, std::span<const TensorType> inputs) {
  if (inputs.size() != 3) expect_inputs(inputs, 2);
  expect_floating(inputs[0], "a matrix");
  if (inputs[1].dtype != inputs[0].dtype) {
    fail("given {} and {}; expected one element type", to_string(inputs[0]), to_string(inputs[1]));
  }
  const Extents e = extents(node, inputs);
  if (inputs.size() == 3 && inputs[2].shape != Shape{e.columns}) {
    fail("the bias is {}; expected [{}]", to_string(inputs[2].shape), e.columns);
  }
  const DType dtype =
      node.attributes.has("output") ? dtype_named(node.attributes.text("output")) : inputs[0].dtype;
  return {{dtype, inputs[0].shape.with(-2, e.rows).with(-1, e.columns)}};
}

// Y = A B: dL/dA = dL/dY B^T and dL/dB = A^T dL/dY (Rumelhart, Hinton, Williams 1986 in matrix
// form, docs/backpropagation.md). With transposed operands the same products, written without
// transposing a result. The bias is added to every row, so its gradient is the sum of the rows.
std::vector<ValueId> gradient(GradientContext& context) {
  GraphBuilder& builder = context.builder;
  const bool ta = context.node.attributes.integer("transpose_a") != 0;
  const bool tb = context.node.attributes.integer("transpose_b") != 0;
  const ValueId a = context.input(0);
  const ValueId b = context.input(1);
  const ValueId dy = context.output_gradient(0);
  const ValueId da = ta ? matmul(builder, b, dy, {.transpose_a = tb, .transpose_b = true})
                        : matmul(builder, dy, b, {.transpose_b = !tb});
  const ValueId db = tb ? matmul(builder, dy, a, {.transpose_a = true, .transpose_b = ta})
                        : matmul(builder, a, dy, {.transpose_a = !ta});
  std::vector<ValueId> gradients = {da, db};
  if (context.node.inputs.size() == 3) {
    gradients.push_back(sum_to_shape(builder, dy, builder.shape(context.input(2))));
  }
  return gradients;
}

Cost cost(const Node& node, std::span<const TensorType> inputs,
          std::span<const TensorType> outputs) {
  return {2.0 * static_cast<double>(outputs[0].shape.elements() * extents(node, inputs).inner)};
}

// Y = A B + bias, where the ranks divide the rows of A, the columns of B, what is summed over, or
// the matrices of a stack (docs/placement.md). Where they divide the sum, each has a summand of Y,
// and one of them alone adds the bias.
Signatures signatures(const PlacementContext& context) {
  const int rank = context.output(0).rank(), row = rank - 2, column = rank - 1;
  const bool ta = context.node.attributes.integer("transpose_a") != 0;
  const bool tb = context.node.attributes.integer("transpose_b") != 0;
  const bool has_bias = context.inputs.size() == 3;
  const std::size_t y = context.of_output(0);
  Signatures found;
  for (int d = 0; d < row; ++d) add_splits(found, context, {{0, d}, {1, d}, {y, d}});
  add_splits(found, context, {{0, ta ? column : row}, {y, row}});
  std::vector<std::pair<std::size_t, int>> columns = {{1, tb ? row : column}, {y, column}};
  if (has_bias) columns.emplace_back(2, 0);
  add_splits(found, context, columns);
  std::vector<std::size_t> summands = {y};
  if (has_bias) summands.push_back(2);
  add_splits(found, context, {{0, ta ? row : column}, {1, tb ? column : row}}, summands);
  return found;
}

const RegisterOp matmul_op{
    {.name = "matmul",
     .infer = infer,
     .gradient = gradient,
     .cost = cost,
     .bf16 = {.use = Bf16Form::Use::kAlways, .inputs = 0b11, .chooses_output = true},
     .signatures = signatures}};

}  // namespace

ValueId matmul(GraphBuilder& builder, ValueId a, ValueId b, MatmulOptions options, ValueId bias) {
  std::vector<ValueId> inputs = {a, b};
  if (bias != kNoValue) inputs.push_back(bias);
  return builder.node1("matmul", std::move(inputs),
                       {{"transpose_a", std::int64_t{options.transpose_a}},
                        {"transpose_b", std::int64_t{options.transpose_b}}});
}

}  // namespace concord::ops

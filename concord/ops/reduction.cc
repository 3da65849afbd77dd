#include "concord/ops/reduction.h"

#include "concord/ops/arithmetic.h"
#include "concord/ops/collective.h"
#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"
#include "concord/ops/shape_ops.h"

namespace concord::ops {
namespace {

// What is reduced may be split too: then the ranks find the largest of theirs together.
Signatures signatures(const PlacementContext& context) {
  Signatures found;
  const Shape &x = context.input(0), &y = context.output(0);
  const int stretched = x.rank() - y.rank();
  for (int d = 0; d < x.rank(); ++d) {
    const int own = d - stretched;
    if (own >= 0 && y[own] == x[d]) {
      add_splits(found, context, {{0, d}, {context.of_output(0), own}});
      continue;
    }
    Signatures along;
    add_splits(along, context, {{0, d}});
    for (PlacementSignature& signature : along) {
      signature.bytes_sent = 2.0 * (context.ranks - 1) / context.ranks *
                             static_cast<double>(context.outputs[0].bytes());
      found.push_back(std::move(signature));
    }
  }
  return found;
}

std::vector<ValueId> localize(LocalContext& context) {
  const std::vector<ValueId> largest = localize_shape(context);
  if (context.signature.outputs[0].is_split()) return largest;
  return {all_reduce(context.builder, largest[0], context.axis, /*maximum=*/true)};
}

// Output: the largest of the elements that attribute "shape" puts into one place, as sum_to_shape
// adds them.
const RegisterOp max_to_shape_op{{
    .name = "max_to_shape",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      expect_floating(inputs[0], "the operand of a maximum");
      const Shape shape(node.attributes.integers("shape"));
      if (broadcast(shape, inputs[0].shape) != inputs[0].shape || inputs[0].shape.elements() == 0) {
        fail("{} has no maximum of shape {}", to_string(inputs[0].shape), to_string(shape));
      }
      return {{sum_type(inputs[0].dtype), shape}};
    },
    // dL/dx = dL/dy / (number of ties) where x = y, else 0.
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      GraphBuilder& b = context.builder;
      const ValueId is_largest = equal(b, context.input(0), context.output(0));
      const ValueId ties = sum_to_shape(b, is_largest, b.shape(context.output(0)));
      return {mul(b, is_largest, div(b, context.output_gradient(0), ties))};
    },
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
          return Cost{static_cast<double>(inputs[0].shape.elements())};
        },
    .bf16 = follows_bf16(),
    .signatures = signatures,
    .localize = localize,
}};

std::vector<bool> is_reduced(const Shape& shape, const std::vector<std::int64_t>& dims) {
  std::vector<bool> reduced(static_cast<std::size_t>(shape.rank()), dims.empty());
  for (const std::int64_t dim : dims) {
    reduced[static_cast<std::size_t>(checked_dim(shape, dim))] = true;
  }
  return reduced;
}

Shape kept_shape(const Shape& shape, const std::vector<bool>& reduced) {
  Shape kept = shape;
  for (int d = 0; d < shape.rank(); ++d) {
    if (reduced[static_cast<std::size_t>(d)]) kept = kept.with(d, 1);
  }
  return kept;
}

ValueId without_dims(GraphBuilder& builder, ValueId x, const std::vector<bool>& dropped) {
  std::vector<std::int64_t> dims;
  for (std::size_t d = 0; d < dropped.size(); ++d) {
    if (!dropped[d]) dims.push_back(builder.shape(x)[static_cast<int>(d)]);
  }
  return reshape(builder, x, Shape(std::move(dims)));
}

}  // namespace

ValueId reduce_sum(GraphBuilder& builder, ValueId x, const std::vector<std::int64_t>& dims,
                   bool keep_dims) {
  const std::vector<bool> reduced = is_reduced(builder.shape(x), dims);
  const ValueId sum = sum_to_shape(builder, x, kept_shape(builder.shape(x), reduced));
  return keep_dims ? sum : without_dims(builder, sum, reduced);
}

ValueId reduce_mean(GraphBuilder& builder, ValueId x, const std::vector<std::int64_t>& dims,
                    bool keep_dims) {
  const ValueId sum = reduce_sum(builder, x, dims, keep_dims);
  const std::int64_t summands =
      builder.shape(x).elements() / std::max<std::int64_t>(1, builder.shape(sum).elements());
  if (summands == 0) fail("reduce_mean: {} holds no elements", to_string(builder.shape(x)));
  return scale(builder, sum, 1.0 / static_cast<double>(summands));
}

ValueId reduce_max(GraphBuilder& builder, ValueId x, const std::vector<std::int64_t>& dims,
                   bool keep_dims) {
  const std::vector<bool> reduced = is_reduced(builder.shape(x), dims);
  const Shape shape = kept_shape(builder.shape(x), reduced);
  const ValueId largest = builder.node1("max_to_shape", {x}, {{"shape", shape.dims()}});
  return keep_dims ? largest : without_dims(builder, largest, reduced);
}

}  // namespace concord::ops

#include "concord/ops/gather.h"

#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

// The shape of x with dim `dim` replaced by the dims of the indices.
Shape gathered(const Shape& x, const TensorType& indices, int dim) {
  if (indices.dtype != DType::kI32) fail("the indices are {}; expected i32", to_string(indices));
  std::vector<std::int64_t> dims(x.begin(), x.begin() + dim);
  dims.insert(dims.end(), indices.shape.begin(), indices.shape.end());
  dims.insert(dims.end(), x.begin() + dim + 1, x.end());
  return Shape(std::move(dims));
}

Cost moves_only(const Node&, std::span<const TensorType>, std::span<const TensorType>) {
  return {};
}

// Attributes: dim, and negative_from_end: 1 where index -1 is the last one, 0 where it is outside.
const RegisterOp gather_op{{
    .name = "gather",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      const int dim = checked_dim(inputs[0].shape, node.attributes.integer("dim"));
      return {{inputs[0].dtype, gathered(inputs[0].shape, inputs[1], dim)}};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      const Shape x = context.builder.shape(context.input(0));
      Attributes attributes = context.node.attributes;
      attributes.set("extent", x[static_cast<int>(attributes.integer("dim"))]);
      return {
          context.builder.node1("gather_backward", {context.output_gradient(0), context.input(1)},
                                std::move(attributes)),
          kNoValue};
    },
    .cost = moves_only,
    .bf16 = follows_bf16(),
}};

// Inputs: dy, indices. Output: dx, whose dim `dim` has attribute extent's indices: at each, the sum
// of the dy that were taken from there, in the order of the indices; of bf16 in f32.
const RegisterOp gather_backward_op{{
    .name = "gather_backward",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      expect_floating(inputs[0], "the output gradient");
      const auto dim = static_cast<int>(node.attributes.integer("dim"));
      const Shape& dy = inputs[0].shape;
      const int of_indices = inputs[1].shape.rank();
      if (dim < 0 || dim + of_indices > dy.rank()) {
        fail("the output gradient is {}; expected the dims of {} at dim {}", to_string(dy),
             to_string(inputs[1].shape), dim);
      }
      std::vector<std::int64_t> dims(dy.begin(), dy.begin() + dim);
      dims.push_back(node.attributes.integer("extent"));
      dims.insert(dims.end(), dy.begin() + dim + of_indices, dy.end());
      const Shape x(std::move(dims));
      if (gathered(x, inputs[1], dim) != dy) {
        fail("the output gradient is {}; expected {}", to_string(dy),
             to_string(gathered(x, inputs[1], dim)));
      }
      return {{sum_type(inputs[0].dtype), x}};
    },
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
          return Cost{static_cast<double>(inputs[0].shape.elements())};
        },
    .bf16 = follows_bf16(),
}};

ValueId add_gather(GraphBuilder& builder, ValueId x, ValueId indices, int dim, bool from_end) {
  return builder.node1("gather", {x, indices},
                       {{"dim", std::int64_t{dim}}, {"negative_from_end", std::int64_t{from_end}}});
}

}  // namespace

ValueId embedding(GraphBuilder& builder, ValueId table, ValueId ids) {
  if (builder.shape(table).rank() != 2 || !is_floating(builder.type(table).dtype)) {
    fail("embedding: the table is {}; expected floating point [V, C]",
         to_string(builder.type(table)));
  }
  return add_gather(builder, table, ids, 0, false);
}

ValueId gather(GraphBuilder& builder, ValueId x, ValueId indices, std::int64_t dim) {
  return add_gather(builder, x, indices, checked_dim(builder.shape(x), dim), true);
}

}  // namespace concord::ops

#include "concord/ops/gather.h"

#include "concord/ops/placement_rules.h"
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

// x, dim `dim` of which is gathered from; indices; and y, what is gathered. As operands, of the op
// itself or of its gradient.
struct Gathering {
  std::size_t x, indices, y;
  int dim;
};

// The dims of x beside the gathered one are those of y, as are the dims of the indices.
void add_kept_splits(Signatures& found, const PlacementContext& context, const Gathering& g,
                     const Shape& x, const Shape& indices) {
  for (int d = 0; d < x.rank(); ++d) {
    if (d == g.dim) continue;
    const int own = d < g.dim ? d : d + indices.rank() - 1;
    add_splits(found, context, {{g.x, d}, {g.y, own}});
  }
}

void add_index_splits(Signatures& found, const PlacementContext& context, const Gathering& g,
                      const Shape& indices, const std::vector<std::size_t>& partial) {
  for (int d = 0; d < indices.rank(); ++d) {
    add_splits(found, context, {{g.indices, d}, {g.y, g.dim + d}}, partial);
  }
}

// A rank with some of the indices of x's dim gathers those alone, and zeros for the others: y is
// the ranks' sum. In the gradient it adds up what was taken from these.
PlacementSignature split_of_gathered(const PlacementContext& context, const Gathering& g,
                                     bool is_gradient) {
  PlacementSignature signature = replicated(context);
  placement_of(signature, g.x) = Placement::split(g.dim);
  if (!is_gradient) placement_of(signature, g.y) = Placement::partial();
  return signature;
}

// Both ops are linear in their first input.
PlacementSignature of_summands(const PlacementContext& context) {
  PlacementSignature signature = replicated(context);
  signature.inputs[0] = signature.outputs[0] = Placement::partial();
  return signature;
}

void set_part(Attributes& attributes, std::int64_t whole_extent, const AxisPlace& axis) {
  attributes.set("first", whole_extent / axis.ranks * axis.index);
  attributes.set("whole_extent", whole_extent);
}

// Attributes: dim, and negative_from_end: 1 where index -1 is the last one, 0 where it is outside.
// Where x has a part of the whole's indices of dim: first, that of the part's first, and
// whole_extent, how many there are; indices of the whole that the part has not give zeros, and
// those outside the whole give NaN in the first part alone.
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
    .signatures = [](const PlacementContext& context) -> Signatures {
      const Gathering g{0, 1, context.of_output(0),
                        static_cast<int>(context.node.attributes.integer("dim"))};
      Signatures found;
      if (is_floating(context.inputs[0].dtype)) {
        found = {of_summands(context), split_of_gathered(context, g, false)};
      }
      add_kept_splits(found, context, g, context.input(0), context.input(1));
      add_index_splits(found, context, g, context.input(1), {});
      return found;
    },
    .localize = [](LocalContext& context) -> std::vector<ValueId> {
      Attributes attributes = context.node.attributes;
      const auto dim = static_cast<int>(attributes.integer("dim"));
      if (context.signature.inputs[0].is_split(dim)) {
        set_part(attributes, context.inputs[0].shape[dim], context.axis);
      }
      return context.builder.node(context.node.op, context.local_inputs, std::move(attributes));
    },
}};

// Inputs: dy, indices. Output: dx, whose dim `dim` has attribute extent's indices: at each, the sum
// of the dy that were taken from there, in the order of the indices; of bf16 in f32. Of a part of
// them: first and whole_extent as above.
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
    .signatures = [](const PlacementContext& context) -> Signatures {
      const std::size_t dx = context.of_output(0);
      const Gathering g{dx, 1, 0, static_cast<int>(context.node.attributes.integer("dim"))};
      Signatures found = {of_summands(context), split_of_gathered(context, g, true)};
      add_kept_splits(found, context, g, context.output(0), context.input(1));
      add_index_splits(found, context, g, context.input(1), {dx});
      return found;
    },
    .localize = [](LocalContext& context) -> std::vector<ValueId> {
      Attributes attributes = context.node.attributes;
      const auto dim = static_cast<int>(attributes.integer("dim"));
      attributes.set("extent", local_output_shape(context)[dim]);
      if (context.signature.outputs[0].is_split(dim)) {
        set_part(attributes, context.outputs[0].shape[dim], context.axis);
      }
      return context.builder.node(context.node.op, context.local_inputs, std::move(attributes));
    },
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

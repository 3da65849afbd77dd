#include "concord/ops/rotary_embedding.h"

#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

// Attributes: base, first_position, and inverse: 1 to turn backwards. A rotation's inverse is its
// transpose: dL/dx is dL/dy turned backwards.
const RegisterOp rotary_embedding_op{{
    .name = "rotary_embedding",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      expect_floating(inputs[0], "the input");
      const Shape& shape = inputs[0].shape;
      if (shape.rank() < 2 || shape[-1] < 2 || shape[-1] % 2 != 0) {
        fail("the input is {}; expected [..., T, D] with D even", to_string(shape));
      }
      if (!(node.attributes.real("base") > 0)) {
        fail("base = {}: expected a positive number", node.attributes.real("base"));
      }
      return {inputs[0]};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      Attributes attributes = context.node.attributes;
      attributes.set("inverse", 1 - attributes.integer("inverse"));
      return {context.builder.node1("rotary_embedding", {context.output_gradient(0)},
                                    std::move(attributes))};
    },
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
          return Cost{3.0 * static_cast<double>(inputs[0].shape.elements())};
        },
}};

}  // namespace

ValueId rotary_embedding(GraphBuilder& builder, ValueId x, double base,
                         std::int64_t first_position) {
  return builder.node1(
      "rotary_embedding", {x},
      {{"base", base}, {"first_position", first_position}, {"inverse", std::int64_t{0}}});
}

}  // namespace concord::ops

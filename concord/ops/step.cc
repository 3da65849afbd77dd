#include "concord/ops/step.h"

#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

const RegisterOp constant_op{{
    .name = "constant",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 0);
      return {
          {dtype_named(node.attributes.text("dtype")), Shape(node.attributes.integers("shape"))}};
    },
    .signatures = elementwise,
    .localize = localize_shape,
}};

const RegisterOp leaf_sum_op{{
    .name = "leaf_sum",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      expect_floating(inputs[0], "a value summed over leaves");
      return {inputs[0]};
    },
    .signatures = elementwise_linear,
}};

const RegisterOp leaf_total_op{{
    .name = std::string(kLeafTotal),
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      if (inputs[0].dtype != DType::kF32) {
        fail("a total over leaves is of {}; expected f32", to_string(inputs[0]));
      }
      return {inputs[0]};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      return {leaf_total(context.builder, context.output_gradient(0))};
    },
    .signatures = elementwise,
}};

}  // namespace

ValueId constant(GraphBuilder& builder, const TensorType& type, double value) {
  return builder.node1("constant", {},
                       {{"dtype", std::string(to_string(type.dtype))},
                        {"shape", type.shape.dims()},
                        {"value", value}});
}

ValueId leaf_sum(GraphBuilder& builder, ValueId x) { return builder.node1("leaf_sum", {x}); }

ValueId leaf_total(GraphBuilder& builder, ValueId x) {
  return builder.node1(std::string(kLeafTotal), {x});
}

}  // namespace concord::ops

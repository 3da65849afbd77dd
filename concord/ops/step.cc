#include "concord/ops/step.h"

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
}};

const RegisterOp leaf_sum_op{{
    .name = "leaf_sum",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      expect_floating(inputs[0], "a value summed over leaves");
      return {inputs[0]};
    },
}};

}  // namespace

ValueId constant(GraphBuilder& builder, const TensorType& type, double value) {
  return builder.node1("constant", {},
                       {{"dtype", std::string(to_string(type.dtype))},
                        {"shape", type.shape.dims()},
                        {"value", value}});
}

ValueId leaf_sum(GraphBuilder& builder, ValueId x) { return builder.node1("leaf_sum", {x}); }

}  // namespace concord::ops

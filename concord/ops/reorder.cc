#include "concord/ops/reorder.h"

#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

const RegisterOp reorder_op{{
    .name = "reorder",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      return {inputs[0]};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      return {context.output_gradient(0)};
    },
    .cost = [](const Node&, std::span<const TensorType>,
               std::span<const TensorType>) { return Cost{}; },
}};

}  // namespace

ValueId reorder(GraphBuilder& builder, ValueId x) { return builder.node1("reorder", {x}); }

}  // namespace concord::ops

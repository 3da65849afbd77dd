#include "concord/ops/dropout.h"

#include <bit>

#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

const RegisterOp dropout_op{{
    .name = "dropout",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      expect_floating(inputs[0], "what dropout is applied to");
      if (inputs[0].shape.rank() < 1 || inputs[0].shape[0] < 1) {
        fail("expected [N, ...], given {}", to_string(inputs[0]));
      }
      if (inputs[1] != TensorType{DType::kI64, {2}}) {
        fail("the position must be i64[2], given {}", to_string(inputs[1]));
      }
      return {inputs[0]};
    },
    // y = mask * x: dL/dx = mask * dL/dy, which is dropout at the same position.
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      return {context.builder.node1("dropout", {context.output_gradient(0), context.input(1)},
                                    context.node.attributes),
              kNoValue};
    },
    .bf16 = follows_bf16(),
}};

}  // namespace

ValueId dropout(GraphBuilder& builder, ValueId x, ValueId position, const DropoutOptions& options) {
  if (!(options.rate >= 0 && options.rate < 1)) {
    fail("dropout: rate = {}: expected a number in [0, 1)", options.rate);
  }
  if (options.rate == 0) return x;
  return builder.node1("dropout", {x, position},
                       {{"rate", options.rate},
                        {"seed", std::bit_cast<std::int64_t>(options.seed)},
                        {"stream", std::int64_t{options.stream}}});
}

}  // namespace concord::ops

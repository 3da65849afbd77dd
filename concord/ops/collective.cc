#include "concord/ops/collective.h"

#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

const RegisterOp all_reduce_op{{
    .name = std::string(kAllReduce),
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      expect_floating(inputs[0], "a value summed over ranks");
      node.attributes.text("axis");
      return {inputs[0]};
    },
}};

}  // namespace
}  // namespace concord::ops

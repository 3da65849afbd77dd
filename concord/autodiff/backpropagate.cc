#include "concord/autodiff/backpropagate.h"

#include "concord/base/error.h"
#include "concord/graph/op.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/step.h"

namespace concord {
namespace {

std::size_t at(ValueId id) { return static_cast<std::size_t>(id); }

// Which values depend on one of `sources`: only these need a gradient.
std::vector<bool> dependents(const Graph& graph, std::span<const ValueId> sources) {
  std::vector<bool> depends(graph.values.size(), false);
  for (const ValueId source : sources) depends[at(source)] = true;
  for (const Node& node : graph.nodes) {
    bool any = false;
    for (const ValueId input : node.inputs) any = any || depends[at(input)];
    for (const ValueId output : node.outputs) depends[at(output)] = depends[at(output)] || any;
  }
  return depends;
}

}  // namespace

std::vector<ValueId> backpropagate(GraphBuilder& builder, ValueId loss,
                                   std::span<const ValueId> with_respect_to) {
  if (builder.shape(loss).elements() != 1) {
    fail("a loss must be a single number to differentiate; it is {}",
         to_string(builder.shape(loss)));
  }
  const Graph& graph = builder.graph();
  const std::vector<bool> depends = dependents(graph, with_respect_to);
  const std::string scope = builder.scope_name();

  // delta[v]: dL/dv, as the sum of what the uses of v have contributed so far, last use first.
  std::vector<ValueId> delta(graph.values.size(), kNoValue);
  delta[at(loss)] = ops::constant(builder, builder.type(loss), 1.0);

  for (NodeId id = graph.value(loss).producer; id >= 0; --id) {
    const Node node = graph.node(id);  // a copy: adding nodes moves them
    std::vector<ValueId> output_gradients;
    bool reached = false;
    for (const ValueId output : node.outputs) {
      output_gradients.push_back(depends[at(output)] ? delta[at(output)] : kNoValue);
      reached = reached || output_gradients.back() != kNoValue;
    }
    if (!reached) continue;

    const Op& op = find_op(node.op);
    if (op.gradient == nullptr) {
      fail("op \"{}\"{} has no gradient rule, but the loss depends on a parameter through it",
           node.op, node.name.empty() ? "" : " of layer " + node.name);
    }
    builder.set_scope_name(node.name);
    GradientContext context{builder, node, output_gradients};
    const std::vector<ValueId> input_gradients = op.gradient(context);
    CONCORD_CHECK(input_gradients.size() == node.inputs.size(), "gradient rule of {}", node.op);

    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId input = node.inputs[i];
      if (input_gradients[i] == kNoValue || !depends[at(input)]) continue;
      CONCORD_CHECK(builder.shape(input_gradients[i]) == builder.shape(input),
                    "gradient rule of {}", node.op);
      ValueId& sum = delta[at(input)];
      sum = sum == kNoValue ? input_gradients[i] : ops::add(builder, sum, input_gradients[i]);
    }
  }
  builder.set_scope_name(scope);

  std::vector<ValueId> gradients;
  for (const ValueId value : with_respect_to) gradients.push_back(delta[at(value)]);
  return gradients;
}

}  // namespace concord

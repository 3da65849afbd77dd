#include "concord/ops/rotary_embedding.h"

#include <algorithm>

#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

// Any dim but the numbers of a head may be split, which turn in pairs.
Signatures signatures(const PlacementContext& context) {
  Signatures found;
  for (const int dim : {0, 2}) add_splits(found, context, {{0, dim}, {context.of_output(0), dim}});
  // Positions in several sections would not follow one another.
  PlacementSignature positions = replicated(context);
  positions.inputs[0] = positions.outputs[0] = Placement::split(1);
  found.push_back(std::move(positions));
  return found;
}

// The heads to be turned come first, here as there; positions count from this rank's first.
std::vector<ValueId> localize(LocalContext& context) {
  Attributes attributes = context.node.attributes;
  const Placement& split = context.signature.inputs[0];
  const Shape& x = context.inputs[0].shape;
  if (split.is_split(2)) {
    const std::int64_t all = attributes.integer("heads");
    std::int64_t heads = 0;
    for (const Range& range : ranges_of(x[2], split, context.axis.ranks, context.axis.index)) {
      heads += std::clamp<std::int64_t>(all - range.begin, 0, range.end - range.begin);
    }
    attributes.set("heads", heads);
  } else if (split.is_split(1)) {
    const std::int64_t before = x[1] / context.axis.ranks * context.axis.index;
    attributes.set("first_position", attributes.integer("first_position") + before);
  }
  return context.builder.node(context.node.op, context.local_inputs, std::move(attributes));
}

// Inputs x and, on request, position. Attributes: base, first_position, heads, and inverse: 1 to
// turn backwards. A rotation's inverse is its transpose: dL/dx is dL/dy turned backwards.
const RegisterOp rotary_embedding_op{{
    .name = "rotary_embedding",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, inputs.size() == 2 ? 2 : 1);
      if (inputs.size() == 2) expect_position(inputs[1], "position");
      expect_floating(inputs[0], "the input");
      const Shape& shape = inputs[0].shape;
      if (shape.rank() != 4 || shape[-1] < 2 || shape[-1] % 2 != 0) {
        fail("the input is {}; expected [N, T, H, D] with D even", to_string(shape));
      }
      const std::int64_t heads = node.attributes.integer("heads");
      if (heads < 0 || heads > shape[2]) {
        fail("{} heads are to be turned: expected at most the {} of the input", heads, shape[2]);
      }
      if (!(node.attributes.real("base") > 0)) {
        fail("base = {}: expected a positive number", node.attributes.real("base"));
      }
      return {inputs[0]};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      Attributes attributes = context.node.attributes;
      attributes.set("inverse", 1 - attributes.integer("inverse"));
      std::vector<ValueId> inputs = context.node.inputs;
      inputs[0] = context.output_gradient(0);
      std::vector<ValueId> gradients(inputs.size(), kNoValue);
      gradients[0] = context.builder.node1("rotary_embedding", inputs, std::move(attributes));
      return gradients;
    },
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
          return Cost{3.0 * static_cast<double>(inputs[0].shape.elements())};
        },
    .bf16 = follows_bf16(),
    .signatures = signatures,
    .localize = localize,
}};

}  // namespace

ValueId rotary_embedding(GraphBuilder& builder, ValueId x, const RotaryOptions& options) {
  const Shape shape = builder.shape(x);
  const std::int64_t all = shape.rank() == 4 ? shape[2] : 0;
  std::vector<ValueId> inputs = {x};
  if (options.position != kNoValue) inputs.push_back(options.position);
  return builder.node1("rotary_embedding", std::move(inputs),
                       {{"base", options.base},
                        {"first_position", options.first_position},
                        {"heads", options.heads == 0 ? all : options.heads},
                        {"inverse", std::int64_t{0}}});
}

}  // namespace concord::ops

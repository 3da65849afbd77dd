#include "concord/ops/dropout.h"

#include <algorithm>
#include <bit>

#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

// The shortest runs of elements that are offered: draws are made for 64 elements at once at most,
// and most of them are thrown away where a run has few.
constexpr std::int64_t kShortestRun = 16;

// What follows each other on a rank that has such a part of x.
std::int64_t run_of(const Shape& x, const Placement& split, int ranks) {
  std::int64_t run = x[split.dim] / split.sections[0] / ranks;
  for (int d = split.dim + 1; d < x.rank(); ++d) run *= x[d];
  return run;
}

// Any dim may be split, into equal sections: the draws are those of the whole.
Signatures signatures(const PlacementContext& context) {
  Signatures found;
  for (int d = 0; d < context.input(0).rank(); ++d) {
    add_splits(found, context, {{0, d}, {context.of_output(0), d}});
  }
  std::erase_if(found, [&](const PlacementSignature& signature) {
    const Placement& split = signature.inputs[0];
    if (split.sections.size() > 1) return true;
    return context.ranks > 1 && run_of(context.input(0), split, context.ranks) < kShortestRun;
  });
  return found;
}

std::vector<ValueId> localize(LocalContext& context) {
  const Shape& x = context.inputs[0].shape;
  const std::int64_t run = run_of(x, context.signature.inputs[0], context.axis.ranks);
  Attributes attributes = context.node.attributes;
  attributes.set("sample_elements", x.elements() / x[0]);
  attributes.set("run", run);
  attributes.set("stride", run * context.axis.ranks);
  attributes.set("offset", run * context.axis.index);
  return context.builder.node(context.node.op, context.local_inputs, std::move(attributes));
}

const RegisterOp dropout_op{{
    .name = "dropout",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      expect_floating(inputs[0], "what dropout is applied to");
      if (inputs[0].shape.rank() < 1 || inputs[0].shape[0] < 1) {
        fail("expected [N, ...], given {}", to_string(inputs[0]));
      }
      if (inputs[1] != TensorType{DType::kI64, {2}}) {
        fail("the position must be i64[2], given {}", to_string(inputs[1]));
      }
      const DropoutPlace place = dropout_place(node, inputs[0].shape);
      if (place.sample_elements < 0 || place.run < 1 || place.stride < 0 || place.offset < 0) {
        fail("runs of {} elements, {} apart, from {} on, of samples of {}: expected none negative",
             place.run, place.stride, place.offset, place.sample_elements);
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
    .signatures = signatures,
    .localize = localize,
}};

}  // namespace

DropoutPlace dropout_place(const Node& node, const Shape& x) {
  const Attributes& attributes = node.attributes;
  if (!attributes.has("run")) {
    const std::int64_t all = std::max<std::int64_t>(1, x.elements());
    return {x.elements() / x[0], all, all, 0};
  }
  return {attributes.integer("sample_elements"), attributes.integer("run"),
          attributes.integer("stride"), attributes.integer("offset")};
}

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

#include "concord/ops/placement_rules.h"

#include <algorithm>

#include "concord/base/error.h"

namespace concord::ops {
namespace {

using OperandDim = std::pair<std::size_t, int>;

}  // namespace

PlacementSignature replicated(const PlacementContext& context) {
  return {std::vector<Placement>(context.inputs.size()),
          std::vector<Placement>(context.outputs.size())};
}

Placement& placement_of(PlacementSignature& signature, std::size_t operand) {
  return operand < signature.inputs.size() ? signature.inputs[operand]
                                           : signature.outputs[operand - signature.inputs.size()];
}

void add_splits(Signatures& signatures, const PlacementContext& context,
                const std::vector<OperandDim>& cut, const std::vector<std::size_t>& partial) {
  for (const std::vector<std::int64_t>& sections : context.sections(cut)) {
    PlacementSignature signature = replicated(context);
    for (const auto& [operand, dim] : cut) {
      placement_of(signature, operand) = Placement::split(dim, sections);
    }
    for (const std::size_t operand : partial) {
      placement_of(signature, operand) = Placement::partial();
    }
    signatures.push_back(std::move(signature));
  }
}

// Dims are aligned at the end; what is stretched along a dim is read whole.
Signatures elementwise(const PlacementContext& context) {
  Signatures signatures;
  const Shape& y = context.output(0);
  for (int d = 0; d < y.rank(); ++d) {
    std::vector<OperandDim> cut;
    for (std::size_t i = 0; i < context.inputs.size(); ++i) {
      const Shape& x = context.input(i);
      const int own = d - (y.rank() - x.rank());
      if (own >= 0 && x[own] == y[d] && y[d] > 1) cut.emplace_back(i, own);
    }
    for (std::size_t o = 0; o < context.outputs.size(); ++o) {
      cut.emplace_back(context.of_output(o), d);
    }
    add_splits(signatures, context, cut);
  }
  return signatures;
}

PlacementSignature all_partial(const PlacementContext& context) {
  return {std::vector<Placement>(context.inputs.size(), Placement::partial()),
          std::vector<Placement>(context.outputs.size(), Placement::partial())};
}

Signatures elementwise_linear(const PlacementContext& context) {
  Signatures signatures = elementwise(context);
  signatures.push_back(all_partial(context));
  return signatures;
}

Signatures elementwise_linear_in_first(const PlacementContext& context) {
  Signatures signatures = elementwise(context);
  PlacementSignature summand = replicated(context);
  summand.inputs[0] = summand.outputs[0] = Placement::partial();
  signatures.push_back(std::move(summand));
  return signatures;
}

Shape local_output_shape(const LocalContext& context, std::size_t o) {
  return shard_shape(context.outputs[o].shape, context.signature.outputs[o], context.axis.ranks);
}

std::vector<ValueId> localize_shape(LocalContext& context) {
  Attributes attributes = context.node.attributes;
  attributes.set("shape", local_output_shape(context).dims());
  return context.builder.node(context.node.op, context.local_inputs, std::move(attributes));
}

// Elements keep their order, so the cuts are those of a row of elements: of `outer` times as many
// sections as the dim has, where `outer` is the product of the dims before it.
std::optional<Placement> reshaped_split(const Shape& from, const Placement& split,
                                        const Shape& to) {
  std::int64_t outer = 1;
  for (int d = 0; d < split.dim; ++d) outer *= from[d];
  const bool equal = split.sections.size() == 1;
  const std::int64_t sections = equal ? outer * split.sections[0] : outer;
  std::int64_t outer_to = 1;
  for (int d = 0; d < to.rank(); outer_to *= to[d++]) {
    if (to[d] == 1 || sections % outer_to != 0 || sections >= outer_to * to[d]) continue;
    if (!equal) {
      return sections == outer_to ? std::optional(Placement::split(d, split.sections))
                                  : std::nullopt;
    }
    return Placement::split(d, {sections / outer_to});
  }
  return std::nullopt;
}

std::vector<ValueId> node_once(GraphBuilder& builder, std::string_view op,
                               std::vector<ValueId> inputs, Attributes attributes) {
  for (const Node& node : builder.graph().nodes) {
    if (node.op == op && node.inputs == inputs && node.attributes == attributes) {
      return node.outputs;
    }
  }
  return builder.node(op, std::move(inputs), std::move(attributes));
}

}  // namespace concord::ops

#include "concord/ops/labels.h"

#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

// Samples may be split, not in sections: a rank's follow each other.
Signatures signatures(const PlacementContext&) {
  const Placement samples = Placement::split(0);
  return {{{samples}, {samples, samples}}};
}

// Rows are those of what all ranks have.
std::vector<ValueId> localize(LocalContext& context) {
  Attributes attributes = context.node.attributes;
  attributes.set("first_sample",
                 context.inputs[0].shape[0] / context.axis.ranks * context.axis.index);
  return context.builder.node(context.node.op, context.local_inputs, std::move(attributes));
}

// Attributes: count and, where the labels are those of some of the samples, first_sample. Input
// labels; outputs rows, labels.
const RegisterOp labelled_rows_op{{
    .name = "labelled_rows",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      const TensorType& labels = inputs[0];
      if (labels.dtype != DType::kI32 || labels.shape.rank() != 2) {
        fail("the labels are {}; expected i32[samples, length]", to_string(labels));
      }
      const std::int64_t count = node.attributes.integer("count");
      if (count < 1 || count > labels.shape[1]) {
        fail("{} labels of each sample of {}; expected 1 to {}", count, to_string(labels),
             labels.shape[1]);
      }
      const TensorType found{DType::kI32, {labels.shape[0] * count}};
      return {found, found};
    },
    .cost = [](const Node&, std::span<const TensorType>,
               std::span<const TensorType>) { return Cost{}; },
    .signatures = signatures,
    .localize = localize,
}};

}  // namespace

LabelledRows labelled_rows(GraphBuilder& builder, ValueId labels, std::int64_t count) {
  const std::vector<ValueId> found = builder.node("labelled_rows", {labels}, {{"count", count}});
  return {found[0], found[1]};
}

}  // namespace concord::ops

#include "concord/ops/softmax.h"

#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"
#include "concord/ops/split_classes.h"

namespace concord::ops {
namespace {

void expect_rows(const TensorType& type) {
  expect_floating(type, "the operand");
  if (type.shape.rank() < 1 || type.shape[-1] < 1) {
    fail("expected [..., C] with at least one class, given {}", to_string(type));
  }
}

void expect_labels(const TensorType& logits, const TensorType& labels) {
  expect_rows(logits);
  std::vector<std::int64_t> rows = logits.shape.dims();
  rows.pop_back();
  const TensorType expected{DType::kI32, Shape(std::move(rows))};
  if (labels != expected) {
    fail("logits {} need labels {}, given {}", to_string(logits), to_string(expected),
         to_string(labels));
  }
}

// What the exponential and the divisions cost beside additions is left out: about five passes.
Cost row_cost(const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
  return {5.0 * static_cast<double>(inputs[0].shape.elements())};
}

// Row by row: any dim but the last may be split.
Signatures placed_rows(const PlacementContext& context) {
  Signatures found = elementwise(context);
  const int last = context.output(0).rank() - 1;
  std::erase_if(found, [&](const PlacementSignature& s) { return s.outputs[0].is_split(last); });
  return found;
}

const RegisterOp softmax_op{{
    .name = "softmax",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      expect_rows(inputs[0]);
      return {inputs[0]};
    },
    // dL/dx_j = y_j * (dL/dy_j - sum_k dL/dy_k * y_k).
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      return {context.builder.node1("softmax_backward",
                                    {context.output_gradient(0), context.output(0)})};
    },
    .cost = row_cost,
    .signatures = placed_rows,
}};

const RegisterOp softmax_backward_op{{
    .name = "softmax_backward",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      expect_rows(inputs[0]);
      expect_same(inputs[0], inputs[1]);
      return {inputs[0]};
    },
    .cost = row_cost,
    .signatures = placed_rows,
}};

// Rows may be divided: those of logits, which is operand `logits`, of labels and of the operands
// that are alike; what is summed over rows is Partial.
void add_row_splits(Signatures& found, const PlacementContext& context, std::size_t logits,
                    std::size_t labels, const std::vector<std::size_t>& alike,
                    const std::vector<std::size_t>& sums) {
  for (int d = 0; d + 1 < context.input(logits).rank(); ++d) {
    std::vector<std::pair<std::size_t, int>> cut = {{logits, d}, {labels, d}};
    for (const std::size_t operand : alike) cut.emplace_back(operand, d);
    add_splits(found, context, cut, sums);
  }
}

// So may classes, which are consecutive on each rank; `sends` as ops/split_classes.h does.
void add_class_split(Signatures& found, const PlacementContext& context, std::size_t logits,
                     const std::vector<std::size_t>& alike, bool sends) {
  const Shape& shape = context.input(logits);
  const int last = shape.rank() - 1;
  PlacementSignature signature = replicated(context);
  placement_of(signature, logits) = Placement::split(last);
  for (const std::size_t operand : alike) placement_of(signature, operand) = Placement::split(last);
  if (sends) {
    signature.bytes_sent = bytes_of_split_classes(shape.elements() / shape[last], context.ranks);
  }
  found.push_back(std::move(signature));
}

bool splits_classes(const LocalContext& context, std::size_t logits) {
  return context.signature.inputs[logits].is_split(context.inputs[logits].shape.rank() - 1);
}

std::vector<ValueId> same_node(LocalContext& context) {
  return context.builder.node(context.node.op, context.local_inputs, context.node.attributes);
}

SplitClasses parts_of_rows(LocalContext& context) {
  return split_classes(context, context.local_inputs[0], context.local_inputs[1],
                       context.inputs[0].shape[-1]);
}

// Attributes: label_smoothing and, where there is one, ignore_label. Inputs logits, labels, weight.
// Outputs the loss, and for the backward op the probabilities: zeros in ignored rows.
const RegisterOp softmax_cross_entropy_op{{
    .name = "softmax_cross_entropy",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 3);
      expect_labels(inputs[0], inputs[1]);
      expect_scalar(inputs[2], "the weight");
      return {{DType::kF32, {}}, inputs[0]};
    },
    // dL/dlogits_ij = dL/dloss * weight * (p_ij - t_ij).
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      if (context.output_gradient(1) != kNoValue) {
        fail("the probabilities of softmax_cross_entropy cannot be differentiated; use softmax");
      }
      return {context.builder.node1("softmax_cross_entropy_backward",
                                    {context.output_gradient(0), context.output(1),
                                     context.input(1), context.input(2)},
                                    context.node.attributes),
              kNoValue, kNoValue};
    },
    .cost = row_cost,
    .signatures = [](const PlacementContext& context) -> Signatures {
      const std::size_t loss = context.of_output(0), probabilities = context.of_output(1);
      Signatures found;
      add_row_splits(found, context, 0, 1, {probabilities}, {loss});
      add_class_split(found, context, 0, {probabilities}, true);
      return found;
    },
    .localize = [](LocalContext& context) -> std::vector<ValueId> {
      if (!splits_classes(context, 0)) return same_node(context);
      const SplitClasses split = parts_of_rows(context);
      return {split.loss(context.local_inputs[2]), split.probabilities()};
    },
}};

// Inputs dL/dloss, probabilities, labels, weight. Of some of the classes: attributes first, the
// first of them, and classes, how many there are in all.
const RegisterOp softmax_cross_entropy_backward_op{{
    .name = "softmax_cross_entropy_backward",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 4);
      expect_scalar(inputs[0], "the loss's gradient");
      expect_labels(inputs[1], inputs[2]);
      expect_scalar(inputs[3], "the weight");
      return {inputs[1]};
    },
    .signatures = [](const PlacementContext& context) -> Signatures {
      Signatures found;
      add_row_splits(found, context, 1, 2, {context.of_output(0)}, {});
      add_class_split(found, context, 1, {context.of_output(0)}, false);
      return found;
    },
    .localize = [](LocalContext& context) -> std::vector<ValueId> {
      if (!splits_classes(context, 1)) return same_node(context);
      return context.builder.node(context.node.op, context.local_inputs,
                                  attributes_of_part(context, context.inputs[1].shape[-1]));
    },
}};

// Attributes: ignore_label, where there is one.
const RegisterOp count_correct_op{{
    .name = "count_correct",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      expect_labels(inputs[0], inputs[1]);
      return {{DType::kF32, {}}};
    },
    .cost =
        [](const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
          return Cost{static_cast<double>(inputs[0].shape.elements())};
        },
    .signatures = [](const PlacementContext& context) -> Signatures {
      Signatures found;
      add_row_splits(found, context, 0, 1, {}, {context.of_output(0)});
      add_class_split(found, context, 0, {}, true);
      return found;
    },
    .localize = [](LocalContext& context) -> std::vector<ValueId> {
      if (!splits_classes(context, 0)) return same_node(context);
      return {parts_of_rows(context).correct(/*only_finite=*/false)};
    },
}};

Attributes with_ignored(Attributes attributes, std::optional<std::int32_t> ignore_label) {
  if (ignore_label) attributes.set("ignore_label", std::int64_t{*ignore_label});
  return attributes;
}

}  // namespace

ValueId softmax(GraphBuilder& builder, ValueId x) { return builder.node1("softmax", {x}); }

ValueId softmax_cross_entropy(GraphBuilder& builder, ValueId logits, ValueId labels, ValueId weight,
                              double label_smoothing, std::optional<std::int32_t> ignore_label) {
  return builder.node("softmax_cross_entropy", {logits, labels, weight},
                      cross_entropy_attributes(label_smoothing, ignore_label))[0];
}

ValueId count_correct(GraphBuilder& builder, ValueId logits, ValueId labels,
                      std::optional<std::int32_t> ignore_label) {
  return builder.node1("count_correct", {logits, labels}, with_ignored({}, ignore_label));
}

Attributes cross_entropy_attributes(double label_smoothing,
                                    std::optional<std::int32_t> ignore_label) {
  if (!(label_smoothing >= 0 && label_smoothing < 1)) {
    fail("cross-entropy: label_smoothing = {}: expected a number in [0, 1)", label_smoothing);
  }
  return with_ignored({{"label_smoothing", label_smoothing}}, ignore_label);
}

std::optional<std::int64_t> ignored_label(const Node& node) {
  if (!node.attributes.has("ignore_label")) return std::nullopt;
  return node.attributes.integer("ignore_label");
}

}  // namespace concord::ops

#include "concord/ops/softmax.h"

#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"

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
}};

// Inputs dL/dloss, probabilities, labels, weight.
const RegisterOp softmax_cross_entropy_backward_op{{
    .name = "softmax_cross_entropy_backward",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 4);
      expect_scalar(inputs[0], "the loss's gradient");
      expect_labels(inputs[1], inputs[2]);
      expect_scalar(inputs[3], "the weight");
      return {inputs[1]};
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

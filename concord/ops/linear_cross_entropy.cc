#include "concord/ops/linear_cross_entropy.h"

#include "concord/ops/arithmetic.h"
#include "concord/ops/matmul.h"
#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"
#include "concord/ops/softmax.h"
#include "concord/ops/split_classes.h"

namespace concord::ops {
namespace {

// Checks x, w, labels, weight and, perhaps, bias.
void expect_layer(std::span<const TensorType> inputs) {
  if (inputs.size() != 5) expect_inputs(inputs, 4);
  const TensorType &x = inputs[0], &w = inputs[1], &labels = inputs[2];
  expect_floating(x, "the layer's input");
  if (w.dtype != x.dtype) {
    fail("given {} and {}; expected one element type", to_string(x), to_string(w));
  }
  if (x.shape.rank() != 2 || w.shape.rank() != 2 || x.shape[1] != w.shape[1] || w.shape[0] < 1) {
    fail("given x {} and w {}; expected [rows, features] and [classes, features]", to_string(x),
         to_string(w));
  }
  if (labels.dtype != DType::kI32 || labels.shape.elements() != x.shape[0]) {
    fail("x {} needs an i32 label for each row, given {}", to_string(x), to_string(labels));
  }
  expect_scalar(inputs[3], "the weight");
  if (inputs.size() == 5 && inputs[4].shape != Shape{w.shape[0]}) {
    fail("the bias is {}; expected [{}]", to_string(inputs[4]), w.shape[0]);
  }
}

// Of `count` products of the size of the logits'.
Cost products(double count, const TensorType& x, const TensorType& w) {
  return {count * 2.0 * static_cast<double>(x.shape.elements() * w.shape[0])};
}

// Where the layer's inputs stand, and the gradients of its parts.
struct Operands {
  std::size_t x, w, labels, weight, bias;  // bias: only if has_bias
  bool has_bias;
};
Operands operands_of(std::size_t inputs, bool is_backward) {
  const std::size_t first = is_backward ? 1 : 0;
  return {first, first + 1, first + 2, first + 3, first + 4, inputs == first + 5};
}

// The ranks divide the rows, whose losses and gradients of w they add up; or the classes, of which
// no rank has all logits (ops/split_classes.h).
Signatures signatures(const PlacementContext& context, bool is_backward) {
  const Operands at = operands_of(context.inputs.size(), is_backward);
  const std::size_t dx = context.of_output(2), dw = context.of_output(3);
  Signatures found;
  std::vector<std::pair<std::size_t, int>> rows = {{at.x, 0}};
  if (is_backward) rows.emplace_back(dx, 0);
  std::vector<std::size_t> sums;
  for (std::size_t o = 0; o < context.outputs.size(); ++o) {
    if (o != 2) sums.push_back(context.of_output(o));
  }
  const Shape &x = context.input(at.x), &labels = context.input(at.labels);
  Signatures by_rows;
  add_splits(by_rows, context, rows, sums);
  for (PlacementSignature& signature : by_rows) {
    const auto of_labels = reshaped_split(x.with(1, 1), signature.inputs[at.x], labels);
    if (!of_labels) continue;
    signature.inputs[at.labels] = *of_labels;
    found.push_back(std::move(signature));
  }

  PlacementSignature classes = replicated(context);
  classes.inputs[at.w] = Placement::split(0);
  if (at.has_bias) classes.inputs[at.bias] = Placement::split(0);
  if (is_backward) {
    placement_of(classes, dx) = Placement::partial();
    placement_of(classes, dw) = Placement::split(0);
    if (at.has_bias) placement_of(classes, dw + 1) = Placement::split(0);
  } else {
    // What the gradient needs of it, it finds.
    classes.bytes_sent = bytes_of_split_classes(x[0], context.ranks);
  }
  found.push_back(std::move(classes));
  return found;
}

std::vector<ValueId> localize(LocalContext& context, bool is_backward) {
  GraphBuilder& b = context.builder;
  const Operands at = operands_of(context.inputs.size(), is_backward);
  const std::vector<ValueId>& inputs = context.local_inputs;
  if (!context.signature.inputs[at.w].is_split()) {
    return b.node(context.node.op, inputs, context.node.attributes);
  }
  const ValueId x = inputs[at.x], w = inputs[at.w], weight = inputs[at.weight];
  const std::int64_t classes = context.inputs[at.w].shape[0];
  std::vector<ValueId> layer = {x, w};
  if (at.has_bias) layer.push_back(inputs[at.bias]);
  const ValueId logits =
      node_once(b, "matmul", std::move(layer),
                {{"transpose_a", std::int64_t{0}}, {"transpose_b", std::int64_t{1}}})[0];
  const ValueId labels =
      node_once(b, "reshape", {inputs[at.labels]}, {{"shape", Shape{b.shape(x)[0]}.dims()}})[0];
  const SplitClasses split = split_classes(context, logits, labels, classes);
  std::vector<ValueId> outputs = {split.loss(weight), split.correct(/*only_finite=*/true)};
  if (!is_backward) return outputs;
  const ValueId dlogits =
      b.node1("softmax_cross_entropy_backward", {inputs[0], split.probabilities(), labels, weight},
              attributes_of_part(context, classes));
  outputs.push_back(matmul(b, dlogits, w));
  outputs.push_back(matmul(b, dlogits, x, {.transpose_a = true}));
  if (at.has_bias) outputs.push_back(sum_to_shape(b, dlogits, b.shape(inputs[at.bias])));
  return outputs;
}

// Attributes: those of softmax_cross_entropy. Inputs x, w, labels, weight and, perhaps, bias.
// Outputs loss, correct.
const RegisterOp linear_cross_entropy_op{{
    .name = "linear_cross_entropy",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_layer(inputs);
      return {{DType::kF32, {}}, {DType::kF32, {}}};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      if (context.output_gradient(1) != kNoValue) {
        fail("the correct rows that linear_cross_entropy counts cannot be differentiated");
      }
      std::vector<ValueId> inputs = context.node.inputs;
      inputs.insert(inputs.begin(), context.output_gradient(0));
      const std::vector<ValueId> outputs = context.builder.node(
          "linear_cross_entropy_backward", std::move(inputs), context.node.attributes);
      std::vector<ValueId> gradients = {outputs[2], outputs[3], kNoValue, kNoValue};
      if (outputs.size() == 5) gradients.push_back(outputs[4]);
      return gradients;
    },
    .cost = [](const Node&, std::span<const TensorType> inputs,
               std::span<const TensorType>) { return products(1, inputs[0], inputs[1]); },
    .bf16 = {.use = Bf16Form::Use::kAlways, .inputs = 0b11},
    .signatures = [](const PlacementContext& context) { return signatures(context, false); },
    .localize = [](LocalContext& context) { return localize(context, false); },
}};

// Inputs dL/dloss and those of linear_cross_entropy. With dlogits as softmax_cross_entropy has it,
// outputs are dx = dlogits w, dw = dlogits^T x and the sum of the rows of dlogits for the bias. The
// logits are computed anew for that, so loss and correct come out once more, as outputs 0 and 1:
// where dL/dloss is a constant, one op does for both (passes/merge_linear_cross_entropy.h). Of x
// and w in bf16, the gradients of w and of the bias are f32 still.
const RegisterOp linear_cross_entropy_backward_op{{
    .name = "linear_cross_entropy_backward",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      if (inputs.size() != 6) expect_inputs(inputs, 5);
      expect_scalar(inputs[0], "the loss's gradient");
      expect_layer(inputs.subspan(1));
      const TensorType& w = inputs[2];
      std::vector<TensorType> outputs = {
          {DType::kF32, {}}, {DType::kF32, {}}, inputs[1], {sum_type(w.dtype), w.shape}};
      if (inputs.size() == 6) outputs.push_back(inputs[5]);
      return outputs;
    },
    .cost = [](const Node&, std::span<const TensorType> inputs,
               std::span<const TensorType>) { return products(3, inputs[1], inputs[2]); },
    .bf16 = {.use = Bf16Form::Use::kAlways, .inputs = 0b110},
    .signatures = [](const PlacementContext& context) { return signatures(context, true); },
    .localize = [](LocalContext& context) { return localize(context, true); },
}};

}  // namespace

std::optional<LinearLayer> linear_layer_of(const Graph& graph, ValueId logits) {
  const auto producer = [&](ValueId id) -> const Node* {
    const NodeId node = graph.value(id).producer;
    return node == kNoNode ? nullptr : &graph.node(node);
  };
  const std::int64_t classes = graph.type(logits).shape[-1];
  const Node* node = producer(logits);
  while (node != nullptr && node->op == "reshape") node = producer(node->inputs[0]);
  if (node == nullptr || node->op != "matmul" || node->attributes.integer("transpose_a") != 0 ||
      node->attributes.integer("transpose_b") == 0) {
    return std::nullopt;
  }
  const Shape& product = graph.type(node->outputs[0]).shape;
  if (product.rank() != 2 || product[1] != classes) return std::nullopt;
  const bool has_bias = node->inputs.size() == 3;
  return LinearLayer{node->inputs[0], node->inputs[1], has_bias ? node->inputs[2] : kNoValue};
}

LossAndCount linear_cross_entropy(GraphBuilder& builder, const LinearLayer& layer, ValueId labels,
                                  ValueId weight, double label_smoothing,
                                  std::optional<std::int32_t> ignore_label) {
  std::vector<ValueId> inputs = {layer.x, layer.w, labels, weight};
  if (layer.bias != kNoValue) inputs.push_back(layer.bias);
  const std::vector<ValueId> outputs =
      builder.node("linear_cross_entropy", std::move(inputs),
                   cross_entropy_attributes(label_smoothing, ignore_label));
  return {outputs[0], outputs[1]};
}

}  // namespace concord::ops

#include "concord/ops/split_classes.h"

#include "concord/ops/collective.h"
#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

TensorType rows_of(const TensorType& logits, DType dtype) {
  if (logits.dtype != DType::kF32 || logits.shape.rank() < 1 || logits.shape[-1] < 1) {
    fail("expected f32 logits [..., C] with at least one class, given {}", to_string(logits));
  }
  std::vector<std::int64_t> rows = logits.shape.dims();
  rows.pop_back();
  return {dtype, Shape(std::move(rows))};
}

TensorType sums_of(const TensorType& rows) {
  std::vector<std::int64_t> dims = rows.shape.dims();
  dims.push_back(kClassSumCount);
  return {DType::kF32, Shape(std::move(dims))};
}

void expect(const TensorType& given, const TensorType& expected, std::string_view what) {
  if (given != expected) {
    fail("{} are {}; expected {}", what, to_string(given), to_string(expected));
  }
}

// Sums come with labels of as many rows.
void expect_sums(std::span<const TensorType> inputs) {
  const TensorType& labels = inputs[1];
  if (labels.dtype != DType::kI32) fail("labels are {}; expected i32", to_string(labels));
  expect(inputs[0], sums_of(labels), "the sums");
}

Cost one_pass(const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
  return {static_cast<double>(inputs[0].shape.elements())};
}
Cost few_passes(const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
  return {3.0 * static_cast<double>(inputs[0].shape.elements())};
}

const RegisterOp largest_of_row_op{{
    .name = std::string(kLargestOfRow),
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      return {rows_of(inputs[0], DType::kF32)};
    },
    .cost = one_pass,
}};

const RegisterOp class_sums_op{{
    .name = std::string(kClassSums),
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 3);
      const TensorType rows = rows_of(inputs[0], DType::kF32);
      expect(inputs[1], rows, "the largest logits");
      expect(inputs[2], {DType::kI32, rows.shape}, "the labels");
      const std::int64_t first = node.attributes.integer("first");
      const std::int64_t classes = node.attributes.integer("classes");
      if (first < 0 || classes - first < inputs[0].shape[-1]) {
        fail("{} classes from {} on are not among {}", inputs[0].shape[-1], first, classes);
      }
      return {sums_of(rows)};
    },
    .cost = few_passes,
}};

const RegisterOp cross_entropy_of_sums_op{{
    .name = std::string(kCrossEntropyOfSums),
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 3);
      expect_sums(inputs);
      expect_scalar(inputs[2], "the weight");
      return {{DType::kF32, {}}};
    },
    .cost = one_pass,
}};

const RegisterOp count_correct_of_sums_op{{
    .name = std::string(kCountCorrectOfSums),
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      expect_sums(inputs);
      return {{DType::kF32, {}}};
    },
    .cost = one_pass,
}};

const RegisterOp softmax_of_sums_op{{
    .name = std::string(kSoftmaxOfSums),
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 4);
      const TensorType rows = rows_of(inputs[0], DType::kF32);
      expect(inputs[1], rows, "the largest logits");
      expect(inputs[2], sums_of(rows), "the sums");
      expect(inputs[3], {DType::kI32, rows.shape}, "the labels");
      return {inputs[0]};
    },
    .cost = few_passes,
}};

Attributes ignored_of(const Attributes& attributes) {
  Attributes ignored;
  if (attributes.has("ignore_label")) {
    ignored.set("ignore_label", attributes.integer("ignore_label"));
  }
  return ignored;
}

}  // namespace

SplitClasses split_classes(LocalContext& context, ValueId logits, ValueId labels,
                           std::int64_t classes) {
  GraphBuilder& b = context.builder;
  const auto once = [&](std::string_view op, std::vector<ValueId> inputs, Attributes attributes) {
    return node_once(b, op, std::move(inputs), std::move(attributes))[0];
  };
  const auto reduced = [&](ValueId x, bool maximum) {
    Attributes attributes = {{"axis", context.axis.name},
                             {"ranks", std::int64_t{context.axis.ranks}}};
    if (maximum) attributes.set("maximum", std::int64_t{1});
    return once(kAllReduce, {x}, std::move(attributes));
  };
  Attributes part = ignored_of(context.node.attributes);
  part.set("first", classes / context.axis.ranks * context.axis.index);
  part.set("classes", classes);
  const ValueId largest = reduced(once(kLargestOfRow, {logits}, {}), true);
  const ValueId sums = reduced(once(kClassSums, {logits, largest, labels}, std::move(part)), false);
  return {b, context.axis, classes, logits, labels, context.node.attributes, largest, sums};
}

ValueId SplitClasses::loss(ValueId weight) const {
  Attributes attributes = cross_entropy;
  attributes.set("classes", classes);
  return node_once(builder, kCrossEntropyOfSums, {sums, labels, weight}, std::move(attributes))[0];
}

ValueId SplitClasses::correct(bool only_finite) const {
  Attributes attributes = ignored_of(cross_entropy);
  attributes.set("only_finite", std::int64_t{only_finite});
  return node_once(builder, kCountCorrectOfSums, {sums, labels}, std::move(attributes))[0];
}

ValueId SplitClasses::probabilities() const {
  return node_once(builder, kSoftmaxOfSums, {logits, largest, sums, labels},
                   ignored_of(cross_entropy))[0];
}

Attributes attributes_of_part(const LocalContext& context, std::int64_t classes) {
  Attributes attributes = context.node.attributes;
  attributes.set("first", classes / context.axis.ranks * context.axis.index);
  attributes.set("classes", classes);
  return attributes;
}

double bytes_of_split_classes(std::int64_t rows, int ranks) {
  const double numbers = static_cast<double>(rows) * (1 + kClassSumCount);
  return 2.0 * (ranks - 1) / ranks * numbers * sizeof(float);
}

}  // namespace concord::ops

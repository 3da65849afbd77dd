#include "concord/ops/optimizer.h"

#include "concord/base/exact_sum.h"
#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"

namespace concord::ops {
namespace {

// The inputs of an update: `scalars` scalars, then `lists` lists of equally many values, of which
// the first holds the parameters and the second the gradients. Outputs: all lists but the second.
std::vector<TensorType> infer_update(std::span<const TensorType> inputs, std::size_t scalars,
                                     std::size_t lists) {
  if (inputs.size() <= scalars || (inputs.size() - scalars) % lists != 0) {
    fail("expected {} scalars and {} lists of equal length, given {} inputs", scalars, lists,
         inputs.size());
  }
  for (std::size_t i = 0; i < scalars; ++i) expect_scalar(inputs[i], "an update's scalar");
  const std::size_t count = (inputs.size() - scalars) / lists;
  const std::span<const TensorType> parameters = inputs.subspan(scalars, count);
  std::vector<TensorType> outputs;
  for (std::size_t list = 0; list < lists; ++list) {
    for (std::size_t i = 0; i < count; ++i) {
      const TensorType& type = inputs[scalars + list * count + i];
      if (type.dtype != DType::kF32) fail("updates run on f32, given {}", to_string(type));
      expect_same(parameters[i], type);
      if (list != 1) outputs.push_back(type);
    }
  }
  return outputs;
}

double elements(std::span<const TensorType> types) {
  double sum = 0;
  for (const TensorType& type : types) sum += static_cast<double>(type.shape.elements());
  return sum;
}

// One node for each parameter.
template <std::size_t scalars>
std::vector<ValueId> separate_update(GraphBuilder& builder, const Node& node) {
  // Every list but that of the gradients comes out again.
  const std::size_t count = node.inputs.size() - scalars - node.outputs.size();
  const std::size_t kept = node.outputs.size() / count;
  std::vector<ValueId> outputs(node.outputs.size());
  for (std::size_t p = 0; p < count; ++p) {
    std::vector<ValueId> inputs(node.inputs.begin(), node.inputs.begin() + scalars);
    for (std::size_t at = scalars + p; at < node.inputs.size(); at += count) {
      inputs.push_back(node.inputs[at]);
    }
    const std::vector<ValueId> next = builder.node(node.op, std::move(inputs), node.attributes);
    for (std::size_t list = 0; list < kept; ++list) outputs[list * count + p] = next[list];
  }
  return outputs;
}

// The op of an update of `scalars` scalars that keeps `memories(node)` lists beside parameters and
// gradients, at about `flops` for each number it writes.
template <std::size_t scalars, std::size_t (*memories)(const Node&), int flops>
Op update_op(const char* name) {
  return {
      .name = name,
      .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
        return infer_update(inputs, scalars, 2 + memories(node));
      },
      .cost = [](const Node&, std::span<const TensorType>,
                 std::span<const TensorType> outputs) { return Cost{flops * elements(outputs)}; },
      .by_number = true,
      .signatures = elementwise,
      .separate = separate_update<scalars>};
}

std::size_t one_memory(const Node&) { return 1; }
std::size_t two_memories(const Node&) { return 2; }
std::size_t momenta_if_any(const Node& node) {
  return node.attributes.real("momentum") != 0 ? 1 : 0;
}
std::size_t squares_and_momenta_if_any(const Node& node) { return 1 + momenta_if_any(node); }

const RegisterOp sgd_update_op{update_op<2, momenta_if_any, 4>("sgd_update")};
const RegisterOp adam_update_op{update_op<3, two_memories, 5>("adam_update")};
const RegisterOp lion_update_op{update_op<2, one_memory, 5>("lion_update")};
const RegisterOp rmsprop_update_op{update_op<2, squares_and_momenta_if_any, 5>("rmsprop_update")};
const RegisterOp adagrad_update_op{update_op<2, one_memory, 5>("adagrad_update")};
const RegisterOp lars_update_op{update_op<3, momenta_if_any, 4>("lars_update")};
// Where others have parameters among their outputs, it has the directions.
const RegisterOp lamb_direction_op{update_op<2, two_memories, 5>("lamb_direction")};

const RegisterOp momentum_op{{
    .name = "momentum",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 3);
      expect_scalar(inputs[0], "a gradient's scale");
      expect_same(inputs[1], inputs[2]);
      if (inputs[1].dtype != DType::kF32) {
        fail("momenta are f32, given {}", to_string(inputs[1]));
      }
      return {inputs[1], inputs[1]};
    },
    .cost = [](const Node&, std::span<const TensorType>,
               std::span<const TensorType> outputs) { return Cost{2.5 * elements(outputs)}; },
    .by_number = true,
    .signatures = elementwise,
}};

const RegisterOp trust_ratio_op{{
    .name = "trust_ratio",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      if (inputs[0] != TensorType{DType::kF64, {2}}) {
        fail("two sums of squares must be f64[2], given {}", to_string(inputs[0]));
      }
      expect_scalar(inputs[1], "a step's scale");
      return {inputs[1]};
    },
}};

void expect_all_f32(std::span<const TensorType> inputs) {
  if (inputs.empty()) fail("expected at least one value");
  for (const TensorType& type : inputs) {
    if (type.dtype != DType::kF32) fail("expected f32 values, given {}", to_string(type));
  }
}

Cost cost_of_squares(const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
  return {2.0 * elements(inputs)};
}

// Of one for all values, or of one for each.
Shape shape_of_sums(const Node& node, std::span<const TensorType> values) {
  if (!node.attributes.has("apart")) return {};
  return {static_cast<std::int64_t>(values.size())};
}

// Of sums of this shape.
TensorType exact_sums(Shape shape) {
  std::vector<std::int64_t> dims = shape.dims();
  dims.push_back(ExactSum::kDigits);
  return {DType::kI64, Shape(dims)};
}

const RegisterOp sum_of_squares_op{{
    .name = "sum_of_squares",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_all_f32(inputs);
      return {{DType::kF64, shape_of_sums(node, inputs)}};
    },
    .cost = cost_of_squares,
    .signatures = [](const PlacementContext& context) -> Signatures {
      Signatures found;
      const Shape& shape = context.input(0);
      for (int d = 0; d < shape.rank(); ++d) {
        std::vector<std::pair<std::size_t, int>> cut;
        for (std::size_t i = 0; i < context.inputs.size(); ++i) {
          if (context.input(i) != shape) return {};
          cut.emplace_back(i, d);
        }
        add_splits(found, context, cut, {context.of_output(0)});
      }
      return found;
    },
    .separate = [](GraphBuilder& builder, const Node& node) -> std::vector<ValueId> {
      if (node.attributes.has("apart")) return {sums_of_squares(builder, node.inputs)};
      std::vector<ValueId> squares;
      for (const ValueId value : node.inputs) squares.push_back(sum_of_squares(builder, {value}));
      return {builder.node1("add_all", std::move(squares))};
    },
}};

const RegisterOp exact_sum_of_squares_op{{
    .name = "exact_sum_of_squares",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_all_f32(inputs);
      return {exact_sums(shape_of_sums(node, inputs))};
    },
    .cost = cost_of_squares,
}};

const RegisterOp rounded_sum_op{{
    .name = "rounded_sum",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      if (inputs.empty()) fail("expected at least one exact sum");
      const std::int64_t digits = inputs[0].shape.elements();
      const Shape sums = inputs[0].shape.rank() == 2 ? Shape{digits / ExactSum::kDigits} : Shape{};
      for (const TensorType& type : inputs) {
        if (type != exact_sums(sums)) {
          fail("expected {}, given {}", to_string(exact_sums(sums)), to_string(type));
        }
      }
      return {{DType::kF64, sums}};
    },
}};

// Any number of f64 scalars. Output: their sum, in their order.
const RegisterOp add_all_op{{
    .name = "add_all",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      if (inputs.empty()) fail("expected at least one value");
      for (const TensorType& type : inputs) {
        if (type != TensorType{DType::kF64, {}}) fail("expected f64[], given {}", to_string(type));
      }
      return {inputs[0]};
    },
    .signatures = [](const PlacementContext& context) -> Signatures {
      return {all_partial(context)};
    },
}};

const RegisterOp clip_factor_op{{
    .name = "clip_factor",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      if (inputs[0] != TensorType{DType::kF64, {}}) {
        fail("the sum of squares must be f64[], given {}", to_string(inputs[0]));
      }
      return {{DType::kF32, {}}};
    },
}};

const RegisterOp moving_average_op{{
    .name = "moving_average",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      expect_floating(inputs[0], "a moving average");
      expect_same(inputs[0], inputs[1]);
      return {inputs[0]};
    },
    .cost = [](const Node&, std::span<const TensorType>,
               std::span<const TensorType> outputs) { return Cost{3.0 * elements(outputs)}; },
    .by_number = true,
    .signatures = elementwise,
}};

// Adds an update's node. Returns its outputs list by list: the parameters, then the memories.
std::vector<std::vector<ValueId>> add_update(GraphBuilder& builder, std::string_view op,
                                             std::vector<ValueId> scalars,
                                             const std::vector<const std::vector<ValueId>*>& lists,
                                             Attributes attributes) {
  std::vector<ValueId> inputs = std::move(scalars);
  for (const auto* list : lists) inputs.insert(inputs.end(), list->begin(), list->end());
  const std::vector<ValueId> outputs = builder.node(op, std::move(inputs), std::move(attributes));
  const auto count = static_cast<std::ptrdiff_t>(lists[0]->size());
  std::vector<std::vector<ValueId>> result;
  for (auto at = outputs.begin(); at != outputs.end(); at += count) {
    result.emplace_back(at, at + count);
  }
  result.resize(lists.size() - 1);  // no momenta: an empty list
  return result;
}

}  // namespace

SgdUpdate sgd_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                     const std::vector<ValueId>& parameters, const std::vector<ValueId>& gradients,
                     const std::vector<ValueId>& momenta, const SgdOptions& options) {
  auto next = add_update(builder, "sgd_update", {learning_rate, gradient_scale},
                         {&parameters, &gradients, &momenta},
                         {{"momentum", options.momentum},
                          {"nesterov", std::int64_t{options.nesterov}},
                          {"weight_decay", options.weight_decay},
                          {"decoupled", std::int64_t{options.decoupled}}});
  return {next[0], next[1]};
}

AdamUpdate adam_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                       ValueId step_count, const std::vector<ValueId>& parameters,
                       const std::vector<ValueId>& gradients,
                       const std::vector<ValueId>& first_moments,
                       const std::vector<ValueId>& second_moments, const AdamOptions& options) {
  auto next = add_update(builder, "adam_update", {learning_rate, gradient_scale, step_count},
                         {&parameters, &gradients, &first_moments, &second_moments},
                         {{"beta1", options.beta1},
                          {"beta2", options.beta2},
                          {"epsilon", options.epsilon},
                          {"weight_decay", options.weight_decay},
                          {"decoupled", std::int64_t{options.decoupled}}});
  return {next[0], next[1], next[2]};
}

LionUpdate lion_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                       const std::vector<ValueId>& parameters,
                       const std::vector<ValueId>& gradients, const std::vector<ValueId>& momenta,
                       const LionOptions& options) {
  auto next = add_update(builder, "lion_update", {learning_rate, gradient_scale},
                         {&parameters, &gradients, &momenta},
                         {{"beta1", options.beta1},
                          {"beta2", options.beta2},
                          {"weight_decay", options.weight_decay},
                          {"decoupled", std::int64_t{1}}});
  return {next[0], next[1]};
}

RmspropUpdate rmsprop_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                             const std::vector<ValueId>& parameters,
                             const std::vector<ValueId>& gradients,
                             const std::vector<ValueId>& square_averages,
                             const std::vector<ValueId>& momenta, const RmspropOptions& options) {
  auto next = add_update(builder, "rmsprop_update", {learning_rate, gradient_scale},
                         {&parameters, &gradients, &square_averages, &momenta},
                         {{"alpha", options.alpha},
                          {"epsilon", options.epsilon},
                          {"momentum", options.momentum},
                          {"weight_decay", options.weight_decay},
                          {"decoupled", std::int64_t{options.decoupled}}});
  return {next[0], next[1], next[2]};
}

AdagradUpdate adagrad_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                             const std::vector<ValueId>& parameters,
                             const std::vector<ValueId>& gradients,
                             const std::vector<ValueId>& square_sums,
                             const AdagradOptions& options) {
  auto next = add_update(builder, "adagrad_update", {learning_rate, gradient_scale},
                         {&parameters, &gradients, &square_sums},
                         {{"epsilon", options.epsilon},
                          {"weight_decay", options.weight_decay},
                          {"decoupled", std::int64_t{options.decoupled}}});
  return {next[0], next[1]};
}

ValueId trust_ratio(GraphBuilder& builder, ValueId sums_of_squares, ValueId step_scale,
                    const TrustRatioOptions& options) {
  return builder.node1(
      "trust_ratio", {sums_of_squares, step_scale},
      {{"coefficient", options.coefficient}, {"weight_decay", options.weight_decay}});
}

SgdUpdate lars_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                      ValueId trust_ratio, const std::vector<ValueId>& parameters,
                      const std::vector<ValueId>& gradients, const std::vector<ValueId>& momenta,
                      const LarsOptions& options) {
  auto next = add_update(builder, "lars_update", {learning_rate, gradient_scale, trust_ratio},
                         {&parameters, &gradients, &momenta},
                         {{"momentum", options.momentum}, {"weight_decay", options.weight_decay}});
  return {next[0], next[1]};
}

LambDirection lamb_direction(GraphBuilder& builder, ValueId gradient_scale, ValueId step_count,
                             const std::vector<ValueId>& parameters,
                             const std::vector<ValueId>& gradients,
                             const std::vector<ValueId>& first_moments,
                             const std::vector<ValueId>& second_moments,
                             const LambOptions& options) {
  auto next = add_update(builder, "lamb_direction", {gradient_scale, step_count},
                         {&parameters, &gradients, &first_moments, &second_moments},
                         {{"beta1", options.beta1},
                          {"beta2", options.beta2},
                          {"epsilon", options.epsilon},
                          {"weight_decay", options.weight_decay}});
  return {next[0], next[1], next[2]};
}

Momentum momentum(GraphBuilder& builder, ValueId gradient_scale, ValueId momentum, ValueId gradient,
                  double factor, bool nesterov) {
  const std::vector<ValueId> next =
      builder.node("momentum", {gradient_scale, momentum, gradient},
                   {{"factor", factor}, {"nesterov", std::int64_t{nesterov}}});
  return {next[0], next[1]};
}

ValueId sum_of_squares(GraphBuilder& builder, const std::vector<ValueId>& values) {
  return builder.node1("sum_of_squares", values);
}

ValueId sums_of_squares(GraphBuilder& builder, const std::vector<ValueId>& values) {
  return builder.node1("sum_of_squares", values, {{"apart", std::int64_t{1}}});
}

ValueId exact_sum_of_squares(GraphBuilder& builder, const std::vector<ValueId>& values) {
  return builder.node1("exact_sum_of_squares", values);
}

ValueId rounded_sum(GraphBuilder& builder, const std::vector<ValueId>& sums) {
  return builder.node1("rounded_sum", sums);
}

ValueId clip_factor(GraphBuilder& builder, ValueId sum_of_squares, double max_norm) {
  if (!(max_norm > 0)) fail("clip_factor: max_norm = {}: expected a positive number", max_norm);
  return builder.node1("clip_factor", {sum_of_squares}, {{"max_norm", max_norm}});
}

ValueId moving_average(GraphBuilder& builder, ValueId running, ValueId value, double momentum) {
  return builder.node1("moving_average", {running, value}, {{"momentum", momentum}});
}

}  // namespace concord::ops

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

// The op of an update of `scalars` scalars (the learning rate first) that keeps `memories(node)`
// lists beside parameters and gradients, at about `flops` for each number it writes.
// `needs_norms`: over all elements of a parameter, so that a part of it is not enough.
template <std::size_t scalars, std::size_t (*memories)(const Node&), int flops,
          bool needs_norms = false>
Op update_op(const char* name) {
  return {
      .name = name,
      .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
        return infer_update(inputs, scalars, 2 + memories(node));
      },
      .cost = [](const Node&, std::span<const TensorType>,
                 std::span<const TensorType> outputs) { return Cost{flops * elements(outputs)}; },
      .by_number = !needs_norms,
      .signatures = needs_norms ? nullptr : elementwise,
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
const RegisterOp lars_update_op{update_op<2, momenta_if_any, 6, true>("lars_update")};
const RegisterOp lamb_update_op{update_op<3, two_memories, 10, true>("lamb_update")};

void expect_all_f32(std::span<const TensorType> inputs) {
  if (inputs.empty()) fail("expected at least one value");
  for (const TensorType& type : inputs) {
    if (type.dtype != DType::kF32) fail("expected f32 values, given {}", to_string(type));
  }
}

Cost cost_of_squares(const Node&, std::span<const TensorType> inputs, std::span<const TensorType>) {
  return {2.0 * elements(inputs)};
}

const TensorType kExactSum{DType::kI64, {ExactSum::kDigits}};

const RegisterOp sum_of_squares_op{{
    .name = "sum_of_squares",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_all_f32(inputs);
      return {{DType::kF64, {}}};
    },
    .cost = cost_of_squares,
    .signatures = [](const PlacementContext& context) -> Signatures {
      Signatures found;
      for (int d = 0; d < context.input(0).rank(); ++d) {
        add_splits(found, context, {{0, d}}, {context.of_output(0)});
      }
      return context.inputs.size() == 1 ? found : Signatures();
    },
    .separate = [](GraphBuilder& builder, const Node& node) -> std::vector<ValueId> {
      std::vector<ValueId> squares;
      for (const ValueId value : node.inputs) squares.push_back(sum_of_squares(builder, {value}));
      return {builder.node1("add_all", std::move(squares))};
    },
}};

const RegisterOp exact_sum_of_squares_op{{
    .name = "exact_sum_of_squares",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_all_f32(inputs);
      return {kExactSum};
    },
    .cost = cost_of_squares,
}};

const RegisterOp rounded_sum_op{{
    .name = "rounded_sum",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      if (inputs.empty()) fail("expected at least one exact sum");
      for (const TensorType& type : inputs) {
        if (type != kExactSum) {
          fail("expected {}, given {}", to_string(kExactSum), to_string(type));
        }
      }
      return {{DType::kF64, {}}};
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

SgdUpdate lars_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                      const std::vector<ValueId>& parameters, const std::vector<ValueId>& gradients,
                      const std::vector<ValueId>& momenta, const LarsOptions& options) {
  auto next = add_update(builder, "lars_update", {learning_rate, gradient_scale},
                         {&parameters, &gradients, &momenta},
                         {{"momentum", options.momentum},
                          {"weight_decay", options.weight_decay},
                          {"trust_coefficient", options.trust_coefficient}});
  return {next[0], next[1]};
}

AdamUpdate lamb_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                       ValueId step_count, const std::vector<ValueId>& parameters,
                       const std::vector<ValueId>& gradients,
                       const std::vector<ValueId>& first_moments,
                       const std::vector<ValueId>& second_moments, const LambOptions& options) {
  auto next = add_update(builder, "lamb_update", {learning_rate, gradient_scale, step_count},
                         {&parameters, &gradients, &first_moments, &second_moments},
                         {{"beta1", options.beta1},
                          {"beta2", options.beta2},
                          {"epsilon", options.epsilon},
                          {"weight_decay", options.weight_decay}});
  return {next[0], next[1], next[2]};
}

ValueId sum_of_squares(GraphBuilder& builder, const std::vector<ValueId>& values) {
  return builder.node1("sum_of_squares", values);
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

#include "concord/ops/optimizer.h"

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

// Inputs learning_rate, gradient_scale, parameters, gradients and, with momentum, momenta.
const RegisterOp sgd_update_op{{
    .name = "sgd_update",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      return infer_update(inputs, 2, node.attributes.real("momentum") != 0 ? 3 : 2);
    },
    .cost = [](const Node&, std::span<const TensorType>,
               std::span<const TensorType> outputs) { return Cost{4.0 * elements(outputs)}; },
}};

// Inputs learning_rate, gradient_scale, step_count, parameters, gradients, first and second
// moments.
const RegisterOp adam_update_op{{
    .name = "adam_update",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      return infer_update(inputs, 3, 4);
    },
    .cost = [](const Node&, std::span<const TensorType>,
               std::span<const TensorType> outputs) { return Cost{5.0 * elements(outputs)}; },
}};

const RegisterOp sum_of_squares_op{{
    .name = "sum_of_squares",
    .infer = [](const Node&, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      if (inputs.empty()) fail("expected at least one value");
      for (const TensorType& type : inputs) {
        if (type.dtype != DType::kF32) fail("expected f32 values, given {}", to_string(type));
      }
      return {{DType::kF64, {}}};
    },
    .cost = [](const Node&, std::span<const TensorType> inputs,
               std::span<const TensorType>) { return Cost{2.0 * elements(inputs)}; },
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
}};

void append(std::vector<ValueId>& list, const std::vector<ValueId>& more) {
  list.insert(list.end(), more.begin(), more.end());
}

std::vector<ValueId> part(const std::vector<ValueId>& outputs, std::size_t index,
                          std::size_t count) {
  const auto begin = outputs.begin() + static_cast<std::ptrdiff_t>(index * count);
  return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

}  // namespace

SgdUpdate sgd_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                     const std::vector<ValueId>& parameters, const std::vector<ValueId>& gradients,
                     const std::vector<ValueId>& momenta, const SgdOptions& options) {
  std::vector<ValueId> inputs = {learning_rate, gradient_scale};
  for (const auto* list : {&parameters, &gradients, &momenta}) append(inputs, *list);
  const std::vector<ValueId> outputs =
      builder.node("sgd_update", std::move(inputs),
                   {{"momentum", options.momentum},
                    {"nesterov", std::int64_t{options.nesterov}},
                    {"weight_decay", options.weight_decay},
                    {"decoupled", std::int64_t{options.decoupled}}});
  const std::size_t count = parameters.size();
  return {part(outputs, 0, count),
          momenta.empty() ? std::vector<ValueId>() : part(outputs, 1, count)};
}

AdamUpdate adam_update(GraphBuilder& builder, ValueId learning_rate, ValueId gradient_scale,
                       ValueId step_count, const std::vector<ValueId>& parameters,
                       const std::vector<ValueId>& gradients,
                       const std::vector<ValueId>& first_moments,
                       const std::vector<ValueId>& second_moments, const AdamOptions& options) {
  std::vector<ValueId> inputs = {learning_rate, gradient_scale, step_count};
  for (const auto* list : {&parameters, &gradients, &first_moments, &second_moments}) {
    append(inputs, *list);
  }
  const std::vector<ValueId> outputs =
      builder.node("adam_update", std::move(inputs),
                   {{"beta1", options.beta1},
                    {"beta2", options.beta2},
                    {"epsilon", options.epsilon},
                    {"weight_decay", options.weight_decay},
                    {"decoupled", std::int64_t{options.decoupled}}});
  const std::size_t count = parameters.size();
  return {part(outputs, 0, count), part(outputs, 1, count), part(outputs, 2, count)};
}

ValueId sum_of_squares(GraphBuilder& builder, const std::vector<ValueId>& values) {
  return builder.node1("sum_of_squares", values);
}

ValueId clip_factor(GraphBuilder& builder, ValueId sum_of_squares, double max_norm) {
  if (!(max_norm > 0)) fail("clip_factor: max_norm = {}: expected a positive number", max_norm);
  return builder.node1("clip_factor", {sum_of_squares}, {{"max_norm", max_norm}});
}

ValueId moving_average(GraphBuilder& builder, ValueId running, ValueId value, double momentum) {
  return builder.node1("moving_average", {running, value}, {{"momentum", momentum}});
}

}  // namespace concord::ops

#include "concord/nn/step.h"

#include <algorithm>
#include <optional>

#include "concord/autodiff/backpropagate.h"
#include "concord/base/error.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/labels.h"
#include "concord/ops/linear_cross_entropy.h"
#include "concord/ops/loss.h"
#include "concord/ops/softmax.h"
#include "concord/ops/step.h"

namespace concord::nn {
namespace {

using Loss = StepOptions::Loss;

void check_options(const StepOptions& options) {
  if (options.microbatch < 1) fail("a microbatch of {} samples", options.microbatch);
  if (options.sample.rank() == 0) fail("a sample without dims; expected features or an image");
  for (const std::int64_t extent : options.sample) {
    if (extent < 1) fail("a sample of {}; extents are positive", to_string(options.sample));
  }
  if (options.labelled > 0 && !options.tokens) {
    fail("{} labels of each sample; expected 0 unless samples are tokens", options.labelled);
  }
}

ValueId add_features(GraphBuilder& builder, const StepOptions& options) {
  std::vector<std::int64_t> dims = {options.microbatch};
  dims.insert(dims.end(), options.sample.begin(), options.sample.end());
  if (options.tokens) return builder.input("tokens", {DType::kI32, Shape(std::move(dims))});
  return builder.input("features", {DType::kF32, Shape(std::move(dims))});
}

ValueId add_scalar(GraphBuilder& builder, std::string name) {
  return builder.input(std::move(name), {DType::kF32, {}}, Input::Kind::kStep);
}

// What is compared with the logits, and which tokens these are wanted of.
struct Truth {
  ValueId targets = kNoValue;  // or labels
  ValueId rows = kNoValue;     // StepContext::rows
  std::optional<std::int32_t> ignore_label = std::nullopt;
};

Truth add_truth(GraphBuilder& builder, const StepOptions& options) {
  const std::int64_t samples = options.microbatch;
  if (options.loss != Loss::kCrossEntropy) {
    return {.targets = builder.input("targets", {DType::kF32, {samples, options.outputs}})};
  }
  const Shape shape = options.tokens ? Shape{samples, options.sample[0]} : Shape{samples};
  const ValueId labels = builder.input("labels", {DType::kI32, shape});
  if (options.labelled == 0) return {.targets = labels};
  const ops::LabelledRows found = ops::labelled_rows(builder, labels, options.labelled);
  return {.targets = found.labels, .rows = found.rows, .ignore_label = ops::kNoLabel};
}

// The logits of a language, one for each word, are too many to keep: the layer that makes them and
// their loss are one op, and the logits themselves dead code.
ops::LossAndCount cross_entropy(GraphBuilder& builder, const StepOptions& options, ValueId logits,
                                const Truth& truth, ValueId weight, double label_smoothing) {
  if (options.tokens) {
    if (const auto layer = ops::linear_layer_of(builder.graph(), logits)) {
      return ops::linear_cross_entropy(builder, *layer, truth.targets, weight, label_smoothing,
                                       truth.ignore_label);
    }
  }
  return {ops::softmax_cross_entropy(builder, logits, truth.targets, weight, label_smoothing,
                                     truth.ignore_label),
          ops::count_correct(builder, logits, truth.targets, truth.ignore_label)};
}

ValueId loss_of_numbers(GraphBuilder& builder, const StepOptions& options, ValueId prediction,
                        ValueId targets, ValueId weight) {
  switch (options.loss) {
    case Loss::kMeanSquaredError:
      return ops::mean_squared_error(builder, prediction, targets, weight);
    case Loss::kL1:
      return ops::l1_loss(builder, prediction, targets, weight);
    case Loss::kHuber:
      return ops::huber_loss(builder, prediction, targets, weight, options.huber_delta);
    case Loss::kBinaryCrossEntropy:
      return ops::binary_cross_entropy_with_logits(builder, prediction, targets, weight);
    case Loss::kCrossEntropy:
      break;
  }
  CONCORD_CHECK(false, "loss {}", static_cast<int>(options.loss));
}

// Compares the logits with the truth and names the results. Returns the microbatch's share of the
// loss.
ValueId add_loss(GraphBuilder& builder, const StepOptions& options, ValueId logits,
                 const Truth& truth, ValueId batch_weight, double label_smoothing) {
  const auto scope = builder.scope("loss");
  ValueId loss = kNoValue;
  if (options.loss != Loss::kCrossEntropy) {
    loss = loss_of_numbers(builder, options, logits, truth.targets, batch_weight);
    if (options.loss == Loss::kBinaryCrossEntropy) {
      const ValueId correct = ops::count_correct_binary(builder, logits, truth.targets);
      builder.output("correct", ops::leaf_sum(builder, correct));
    }
  } else {
    const double share = static_cast<double>(options.microbatch) /
                         static_cast<double>(builder.shape(truth.targets).elements());
    const auto shared = [&](ValueId value) {
      return share == 1 ? value : ops::scale(builder, value, share);
    };
    const ops::LossAndCount result =
        cross_entropy(builder, options, logits, truth, shared(batch_weight), label_smoothing);
    loss = result.loss;
    builder.output("correct", ops::leaf_sum(builder, shared(result.correct)));
  }
  builder.output("loss", ops::leaf_sum(builder, loss));
  return loss;
}

ValueId apply_network(GraphBuilder& builder, const StepOptions& options, const StepContext& context,
                      ValueId features) {
  if (!options.network)
    return build_model(builder, options.model, context, features, options.outputs);
  const ValueId logits = options.network(builder, context, features);
  std::vector<std::int64_t> expected_dims = {options.microbatch};
  if (options.tokens) expected_dims.push_back(options.sample[0]);
  if (context.rows != kNoValue) expected_dims = builder.shape(context.rows).dims();
  expected_dims.push_back(options.outputs);
  const Shape expected(std::move(expected_dims));
  if (builder.shape(logits) != expected) {
    fail("the network returns {}; expected {}, one row for each label",
         to_string(builder.shape(logits)), to_string(expected));
  }
  return logits;
}

std::vector<ValueId> parameters_of(const Graph& graph) {
  std::vector<ValueId> parameters;
  for (const State& state : graph.states) {
    if (state.role == State::Role::kParameter) parameters.push_back(state.value);
  }
  return parameters;
}

}  // namespace

Graph build_training_step(const StepOptions& options) {
  check_options(options);
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId features = add_features(builder, options);
  const Truth truth = add_truth(builder, options);
  const StepContext context{
      .mode = Mode::kTrain,
      .seed = options.seed,
      .batch_weight = add_scalar(builder, "batch_weight"),
      .position = builder.input("position", {DType::kI64, {2}}),
      .rows = truth.rows,
      .batch_norm_over_leaves = options.batch_norm_over_leaves,
  };
  const ValueId learning_rate = add_scalar(builder, "learning_rate");

  const ValueId logits = apply_network(builder, options, context, features);
  const ValueId loss =
      add_loss(builder, options, logits, truth, context.batch_weight, options.label_smoothing);
  const std::vector<ValueId> parameters = parameters_of(graph);
  const std::vector<ValueId> gradients = backpropagate(builder, loss, parameters);
  std::vector<ParameterGradient> updates;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = graph.value(parameters[i]).name;
    CONCORD_CHECK(gradients[i] != kNoValue, "\"{}\"", name);
    builder.set_scope_name(name);
    updates.push_back({parameters[i], ops::leaf_sum(builder, gradients[i])});
  }
  builder.set_scope_name("");
  apply_optimizer(builder, options.optimizer, updates, learning_rate);
  return graph;
}

Graph build_evaluation_step(const StepOptions& options) {
  check_options(options);
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId features = add_features(builder, options);
  const Truth truth = add_truth(builder, options);
  const ValueId batch_weight = add_scalar(builder, "batch_weight");
  const ValueId logits =
      apply_network(builder, options, {.mode = Mode::kEvaluate, .rows = truth.rows}, features);
  add_loss(builder, options, logits, truth, batch_weight, /*label_smoothing=*/0);
  return graph;
}

Graph build_prediction(const StepOptions& options) {
  check_options(options);
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId features = add_features(builder, options);
  builder.output("logits", apply_network(builder, options, {.mode = Mode::kEvaluate}, features));
  return graph;
}

Graph build_continuation(const StepOptions& options, std::int64_t count, bool only_read) {
  check_options(options);
  const std::int64_t positions = options.sample[0];
  if (count < 1 || count > positions) fail("{} tokens of {} positions", count, positions);
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId tokens =
      builder.input("tokens", {DType::kI32, {options.microbatch, count}}, Input::Kind::kStep);
  const StepContext context{
      .mode = Mode::kEvaluate,
      .positions = positions,
      .first_position = builder.input("first_position", {DType::kI64, {}}, Input::Kind::kStep)};
  StepOptions given = options;
  given.sample = {count};
  const ValueId logits = apply_network(builder, given, context, tokens);
  const auto is_cache = [](const State& s) { return s.role == State::Role::kCache; };
  if (std::ranges::none_of(graph.states, is_cache)) {
    fail("model \"{}\" cannot continue a text: it keeps no keys and values; gpt does",
         options.model.name);
  }
  if (!only_read) builder.output("logits", logits);
  return graph;
}

}  // namespace concord::nn

// Concord as a library: a model written with GraphBuilder, trained by Engine on data made in
// memory. The task: which of two interleaved rings a point of the plane lies on.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <vector>

#include "concord/autodiff/backpropagate.h"
#include "concord/nn/layers.h"
#include "concord/ops/activation.h"
#include "concord/ops/softmax.h"
#include "concord/ops/step.h"
#include "concord/optim/optimizer.h"
#include "concord/train/engine.h"

using namespace concord;

namespace {

constexpr std::int64_t kBatch = 64;
constexpr int kSteps = 300;

ValueId model(GraphBuilder& builder, ValueId x) {
  x = ops::relu(builder, nn::linear(builder, "fc1", x, 32));
  return nn::linear(builder, "fc2", x, 2);
}

// Forward and loss; summed over the leaves of the batch for the engine to read.
ValueId loss(GraphBuilder& builder, std::int64_t samples) {
  const ValueId features = builder.input("features", {DType::kF32, {samples, 2}});
  const ValueId labels = builder.input("labels", {DType::kI32, {samples}});
  const ValueId weight = builder.input("batch_weight", {DType::kF32, {}}, Input::Kind::kStep);
  const ValueId logits = model(builder, features);
  const ValueId loss = ops::softmax_cross_entropy(builder, logits, labels, weight);
  builder.output("loss", ops::leaf_sum(builder, loss));
  builder.output("correct", ops::leaf_sum(builder, ops::count_correct(builder, logits, labels)));
  return loss;
}

Graph training(std::int64_t samples) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId rate = builder.input("learning_rate", {DType::kF32, {}}, Input::Kind::kStep);
  const ValueId objective = loss(builder, samples);
  std::vector<ValueId> parameters;
  for (const State& state : graph.states) parameters.push_back(state.value);
  const std::vector<ValueId> gradients = backpropagate(builder, objective, parameters);
  std::vector<ParameterGradient> updates;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    updates.push_back({parameters[i], ops::leaf_sum(builder, gradients[i])});
  }
  apply_optimizer(builder, {.name = "adam"}, updates, rate);
  return graph;
}

Graph evaluation(std::int64_t samples) {
  Graph graph;
  GraphBuilder builder(graph);
  loss(builder, samples);
  return graph;
}

Graph prediction(std::int64_t samples) {
  Graph graph;
  GraphBuilder builder(graph);
  builder.output("logits", model(builder, builder.input("features", {DType::kF32, {samples, 2}})));
  return graph;
}

struct Rings {
  std::vector<float> features;
  std::vector<std::int32_t> labels;

  // Points in turn on the ring of radius 1 and of radius 2, `first` being the number of the first.
  explicit Rings(std::int64_t first) {
    for (std::int64_t i = first; i < first + kBatch; ++i) {
      const double angle = 2.4 * static_cast<double>(i);
      const double radius = i % 2 == 0 ? 1.0 : 2.0;
      features.push_back(static_cast<float>(radius * std::cos(angle)));
      features.push_back(static_cast<float>(radius * std::sin(angle)));
      labels.push_back(static_cast<std::int32_t>(i % 2));
    }
  }
  train::Samples samples() const {
    return {.count = kBatch, .features = features, .labels = labels};
  }
};

}  // namespace

int main() try {
  train::Engine engine({training, evaluation, prediction}, {.batch = kBatch, .seed = 1});
  std::printf("%lld parameters\n", static_cast<long long>(engine.parameter_count()));
  for (int step = 0; step < kSteps; ++step) {
    const Rings rings(step * kBatch);
    engine.begin_step({.step = step, .samples = kBatch, .learning_rate = 0.01});
    engine.accumulate(rings.samples());
    const train::StepResult result = engine.reduce();
    engine.update();
    if (step % 100 == 0) std::printf("step %d: loss %.4f\n", step, result.loss);
  }
  const Rings unseen(1000003);
  const train::StepResult result = engine.evaluate(unseen.samples());
  std::printf("unseen points: loss %.4f, %.0f of %d correct\n", result.loss / kBatch,
              result.correct, static_cast<int>(kBatch));
  return result.correct > 0.9 * kBatch ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "embed: %s\n", error.what());
  return 1;
}

// Concord as a library: a model written with GraphBuilder, trained by Engine on data made in
// memory. The task: which of two interleaved rings a point of the plane lies on.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <vector>

#include "concord/nn/layers.h"
#include "concord/nn/step.h"
#include "concord/ops/activation.h"
#include "concord/train/engine.h"

using namespace concord;

namespace {

constexpr std::int64_t kBatch = 64;
constexpr int kSteps = 300;

ValueId network(GraphBuilder& builder, const nn::StepContext&, ValueId x) {
  x = ops::relu(builder, nn::linear(builder, "fc1", x, 32));
  return nn::linear(builder, "fc2", x, 2);
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
  nn::StepOptions options;
  options.network = network;
  options.sample = {2};
  options.outputs = 2;
  options.optimizer.name = "adam";
  train::Engine engine(train::model_graphs(options), {.batch = kBatch, .seed = 1});
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

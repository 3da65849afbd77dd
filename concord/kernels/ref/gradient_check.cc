#include "concord/kernels/ref/gradient_check.h"

#include <algorithm>
#include <cmath>

#include "concord/autodiff/backpropagate.h"
#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/ops/arithmetic.h"

namespace concord::ref {
namespace {

Array normal_array(const Shape& shape, std::uint64_t seed, std::uint32_t stream) {
  Array array(shape);
  const RandomStream random{.seed = seed, .stream = stream};
  for (std::size_t i = 0; i < array.data.size(); ++i) {
    array.data[i] = normal01(random.bits(2 * i), random.bits(2 * i + 1));
  }
  return array;
}

}  // namespace

std::string check_gradients(const GradientCheck& check) {
  Graph graph;
  GraphBuilder builder(graph);
  Bindings bindings = check.fixed;
  std::vector<ValueId> inputs;
  for (std::size_t i = 0; i < check.shapes.size(); ++i) {
    const std::string name = fmt::format("x{}", i);
    inputs.push_back(builder.input(name, {DType::kF32, check.shapes[i]}));
    if (!bindings.contains(name)) {
      bindings[name] = normal_array(check.shapes[i], check.seed, static_cast<std::uint32_t>(i));
    }
  }
  const ValueId output = check.build(builder, inputs);
  const ValueId weights = builder.input("output_weights", builder.type(output));
  bindings["output_weights"] = normal_array(builder.shape(output), check.seed, 1000);
  const ValueId loss = ops::sum_to_shape(builder, ops::mul(builder, output, weights), Shape{});
  const std::vector<ValueId> gradients = backpropagate(builder, loss, inputs);

  const std::vector<Array> values = evaluate(graph, bindings);
  double worst = check.tolerance;
  std::string report;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Array& x = bindings["x" + std::to_string(i)];
    for (std::size_t k = 0; k < x.data.size(); ++k) {
      const double original = x.data[k];
      x.data[k] = original + check.step;
      const double above = evaluate(graph, bindings)[static_cast<std::size_t>(loss)].data[0];
      x.data[k] = original - check.step;
      const double below = evaluate(graph, bindings)[static_cast<std::size_t>(loss)].data[0];
      x.data[k] = original;
      const double numeric = (above - below) / (2 * check.step);
      const double analytic =
          gradients[i] == kNoValue ? 0.0 : values[static_cast<std::size_t>(gradients[i])].data[k];
      const double error = std::abs(analytic - numeric) / std::max(1.0, std::abs(numeric));
      if (error > worst || std::isnan(error)) {
        worst = error;
        report = fmt::format("input {} element {}: gradient rule {}, central difference {}", i, k,
                             analytic, numeric);
      }
    }
  }
  return report;
}

}  // namespace concord::ref

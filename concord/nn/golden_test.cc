// Trainings by the reference evaluator against the same by PyTorch (tests/golden/golden.h). Both
// compute in double precision, so they agree nearly to its last digits.
#include "tests/golden/golden.h"

#include <gtest/gtest.h>

#include "concord/kernels/ref/reference.h"

namespace concord::nn {
namespace {

ref::Bindings batch_bindings(const golden::Golden& golden, const Graph& graph, std::uint32_t step) {
  const golden::Batch batch = golden::batch_of(golden, step);
  const auto array = [&](const char* input, const auto& values) -> ref::Array {
    return {graph.type(graph.find_input(input)).shape, {values.begin(), values.end()}};
  };
  ref::Bindings bindings = {{"labels", array("labels", batch.labels)},
                            {"position", {{2}, {static_cast<double>(step), 0}}}};
  if (golden.options.tokens) {
    bindings["tokens"] = array("tokens", batch.tokens);
  } else {
    bindings["features"] = array("features", batch.features);
  }
  return bindings;
}

// Expects the losses of training and of the evaluation after it within a relative tolerance.
void expect_losses(const std::string& name, double tolerance) {
  const golden::Golden golden = golden::load(CONCORD_SOURCE_DIR, name);
  const Graph graph = build_training_step(golden.options);
  const Graph evaluation = build_evaluation_step(golden.options);
  ref::Bindings bindings;
  for (const State& state : graph.states) {
    const Value& value = graph.value(state.value);
    std::vector<float> values(static_cast<std::size_t>(value.type.shape.elements()));
    initialize(graph, state, golden.seed, values);
    bindings[value.name] = {value.type.shape, {values.begin(), values.end()}};
  }
  bindings["learning_rate"] = {{}, {golden.learning_rate}};
  bindings["batch_weight"] = {{}, {1.0 / static_cast<double>(golden.options.microbatch)}};
  for (std::uint32_t step = 0; step < golden.losses.size(); ++step) {
    ref::StepResult result =
        ref::evaluate_step(graph, bindings, {{batch_bindings(golden, graph, step)}});
    const double expected = golden.losses[step];
    EXPECT_NEAR(result.outputs["loss"][0], expected, tolerance * expected) << "step " << step;
    result.next_states.merge(bindings);  // what is no state stays as it is
    bindings = std::move(result.next_states);
  }
  const ref::StepResult result = ref::evaluate_step(
      evaluation, bindings,
      {{batch_bindings(golden, graph, static_cast<std::uint32_t>(golden.losses.size()))}});
  EXPECT_NEAR(result.outputs.at("loss")[0], golden.evaluation_loss,
              tolerance * golden.evaluation_loss);
}

TEST(GoldenReference, MlpTrainsAsInPytorch) { expect_losses("mlp", 1e-10); }
TEST(GoldenReference, LenetTrainsAsInPytorch) { expect_losses("lenet", 1e-10); }
TEST(GoldenReference, GptTrainsAsInPytorch) { expect_losses("gpt", 1e-9); }
TEST(GoldenReference, GptWithRotaryPositionsTrainsAsInPytorch) {
  expect_losses("gpt_rotary", 1e-9);
}
TEST(GoldenReference, VitTrainsAsInPytorch) { expect_losses("vit", 1e-9); }
TEST(GoldenReference, BertTrainsAsInPytorch) { expect_losses("bert", 1e-9); }
TEST(GoldenReference, ResidualNetworkTrainsAsInPytorch) { expect_losses("resnet_small", 1e-8); }
TEST(GoldenReference, AdagradTrainsAsInPytorch) { expect_losses("mlp_adagrad", 1e-10); }
TEST(GoldenReference, RmspropTrainsAsInPytorch) { expect_losses("mlp_rmsprop", 1e-10); }
// PyTorch divides by a norm to which nothing is added.
TEST(GoldenReference, MuonTrainsAsInPytorch) { expect_losses("mlp_muon", 1e-8); }

}  // namespace
}  // namespace concord::nn

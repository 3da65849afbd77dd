#include "concord/passes/recompute.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>

#include "concord/autodiff/backpropagate.h"
#include "concord/base/philox.h"
#include "concord/graph/verifier.h"
#include "concord/kernels/cpu/instruction_set.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/matmul.h"
#include "concord/ops/step.h"
#include "concord/passes/dead_code.h"
#include "concord/train/engine.h"

namespace concord {
namespace {

constexpr std::array kAll = {Recompute::kNone, Recompute::kSelective, Recompute::kFull};

// Layers y = tanh(x W) and the gradients of their weights.
Graph chain(std::int64_t layers) {
  Graph graph;
  GraphBuilder b(graph);
  ValueId x = b.input("x", {DType::kF32, {64, 32}});
  std::vector<ValueId> weights;
  for (std::int64_t i = 0; i < layers; ++i) {
    weights.push_back(
        b.state("w" + std::to_string(i), {DType::kF32, {32, 32}}, State::Role::kParameter, {}));
    x = ops::tanh(b, ops::matmul(b, x, weights.back()));
  }
  const ValueId loss = ops::sum_to_shape(b, x, Shape{});
  b.output("loss", ops::leaf_sum(b, loss));
  const std::vector<ValueId> gradients = backpropagate(b, loss, weights);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    b.set_next(weights[i], ops::leaf_sum(b, gradients[i]));
  }
  return graph;
}

std::ptrdiff_t count(const Graph& graph, const std::string& op) {
  return std::ranges::count(graph.nodes, op, &Node::op);
}

TEST(Recompute, SelectiveLeavesMatrixProductsAlone) {
  const Graph graph = remove_dead_code(chain(8));
  const Graph selective = recompute_activations(graph, Recompute::kSelective);
  const Graph full = recompute_activations(graph, Recompute::kFull);
  verify(selective);
  verify(full);
  // The gradient of tanh reads its output: nothing that is cheap could stand for it.
  EXPECT_EQ(selective.nodes.size(), graph.nodes.size());
  EXPECT_GT(count(full, "matmul"), count(graph, "matmul"));
  EXPECT_LT(count(full, "matmul"), count(graph, "matmul") + 8);  // the last segment's are not
  EXPECT_EQ(count(full, "leaf_sum"), count(graph, "leaf_sum"));
}

TEST(Recompute, LeavesAGraphWithoutBackwardPassAlone) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {64, 32}});
  b.output("y", ops::tanh(b, ops::relu(b, x)));
  EXPECT_EQ(recompute_activations(graph, Recompute::kFull).nodes.size(), 2u);
}

std::size_t arena_of(const Graph& graph, Recompute recompute) {
  KernelPolicy policy{.measure = false};
  Graph lowered = lower(graph, policy, {.recompute = recompute});
  const StateStore states(lowered);
  return compile(std::move(lowered), policy, states).arena_bytes;
}

// Chen et al. 2016, section 4.2: memory as the root of the depth. Inputs and scratchpads are in it.
TEST(Recompute, FullTakesMemoryThatGrowsSlowerThanDepth) {
  EXPECT_GT(arena_of(chain(64), Recompute::kNone), 5 * arena_of(chain(8), Recompute::kNone));
  EXPECT_LT(arena_of(chain(64), Recompute::kFull), 3 * arena_of(chain(8), Recompute::kFull));
}

// Networks with everything that could go wrong: dropout, statistics of norms, shortcuts, reorders.
nn::StepOptions network(const std::string& name) {
  nn::StepOptions options;
  options.model = {.name = name,
                   .hidden = {48, 48, 48, 48},
                   .activation = "gelu",
                   .dropout = name == "resnet_small" ? 0 : 0.2,
                   .width = 16,
                   .blocks = {3, 2},
                   .layers = 4,
                   .heads = 2};
  options.tokens = name == "gpt";
  options.sample = options.tokens ? Shape{32} : Shape{3, 8, 8};
  options.outputs = 7;
  options.optimizer.momentum = 0.9;
  options.seed = 5;
  return options;
}

constexpr std::int64_t kBatch = 16;

std::unique_ptr<train::Engine> engine_of(const nn::StepOptions& options, Recompute recompute,
                                         DType precision = DType::kF32) {
  return std::make_unique<train::Engine>(train::model_graphs(options),
                                         train::EngineOptions{.batch = kBatch,
                                                              .leaves = 2,
                                                              .microbatch = 4,
                                                              .recompute = recompute,
                                                              .seed = 3,
                                                              .precision = precision,
                                                              .policy = {.measure = false}});
}

// Three steps, the last a shorter one. Returns their losses; the states hold the rest.
std::vector<double> train(train::Engine& engine, const nn::StepOptions& options) {
  const RandomStream random{.seed = 11};
  std::vector<float> features;
  std::vector<std::int32_t> tokens, labels;
  for (std::int64_t i = 0; i < kBatch * options.sample.elements(); ++i) {
    const PhiloxBlock draw = random.block(static_cast<std::uint64_t>(i));
    features.push_back(normal01(draw[0], draw[1]));
    tokens.push_back(static_cast<std::int32_t>(uniform_below(draw[2], 7)));
    labels.push_back(static_cast<std::int32_t>(uniform_below(draw[3], 7)));
  }
  const auto width = static_cast<std::size_t>(options.sample.elements());
  std::vector<double> losses;
  for (std::int64_t step = 0; step < 3; ++step) {
    const std::int64_t samples = step == 2 ? kBatch - 3 : kBatch;
    const auto rows = static_cast<std::size_t>(samples);
    train::Samples batch{.count = samples};
    if (options.tokens) {
      batch.tokens = std::span(tokens).first(rows * width);
      batch.labels = std::span(labels).first(rows * width);
    } else {
      batch.features = std::span(features).first(rows * width);
      batch.labels = std::span(labels).first(rows);
    }
    engine.begin_step({step, samples, 0.05});
    engine.accumulate(batch);
    losses.push_back(engine.reduce().loss);
    engine.update();
  }
  return losses;
}

// Parameters, momenta and running statistics: so the gradients are the same as well, and statistics
// move once.
void expect_no_bit_changes(DType precision) {
  for (const char* name : {"mlp", "resnet_small", "gpt"}) {
    const auto kept = engine_of(network(name), Recompute::kNone, precision);
    const std::vector<double> losses = train(*kept, network(name));
    for (const Recompute recompute : {Recompute::kSelective, Recompute::kFull}) {
      const auto engine = engine_of(network(name), recompute, precision);
      EXPECT_EQ(train(*engine, network(name)), losses) << name;
      EXPECT_GT(engine->training_program().microbatch.size(),
                kept->training_program().microbatch.size())
          << name;
      const StateStore &states = engine->states(), &expected = kept->states();
      EXPECT_TRUE(std::equal(states.data(), states.data() + states.bytes(), expected.data()))
          << name;
    }
  }
}

TEST(Recompute, ChangesNoBit) { expect_no_bit_changes(DType::kF32); }

TEST(Recompute, ChangesNoBitOfBf16) {
  if (!cpu::has_bf16()) GTEST_SKIP() << "the processor has no bf16";
  expect_no_bit_changes(DType::kBF16);
}

TEST(Recompute, TakesLessMemoryTheMoreItRecomputes) {
  for (const char* name : {"resnet_small", "gpt"}) {
    std::array<std::size_t, kAll.size()> bytes{};
    std::ranges::transform(kAll, bytes.begin(), [&](Recompute recompute) {
      nn::StepOptions options = network(name);
      options.model.layers = 8;  // enough that what they keep outweighs a kernel's scratchpad
      return engine_of(options, recompute)->training_program().arena_bytes;
    });
    EXPECT_LT(bytes[1], bytes[0]) << name;
    EXPECT_LT(bytes[2], bytes[1]) << name;
  }
}

// The node that makes the loss of many words makes its gradients as well, and they are dear.
TEST(Recompute, FullComputesNoGradientTwice) {
  nn::StepOptions options = network("gpt");
  options.outputs = 3000;
  const auto engine = engine_of(options, Recompute::kFull);
  EXPECT_EQ(std::ranges::count(engine->training_program().microbatch,
                               "linear_cross_entropy_backward", &ProgramStep::op),
            1);
}

}  // namespace
}  // namespace concord

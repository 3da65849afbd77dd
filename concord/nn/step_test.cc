#include "concord/nn/step.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/graph/verifier.h"
#include "concord/kernels/ref/reference.h"
#include "concord/nn/initialize.h"
#include "concord/parallel/partition.h"

namespace concord::nn {
namespace {

using ref::Array;
using ref::Bindings;

// A fixed batch of 8 samples: draws for features and targets, labels that follow from the features.
struct Data {
  explicit Data(const StepOptions& options) : options(options) {}

  // Samples [first, first + options.microbatch).
  Bindings microbatch(std::int64_t first, std::int64_t step) const {
    std::vector<std::int64_t> dims = {options.microbatch};
    dims.insert(dims.end(), options.sample.begin(), options.sample.end());
    Array features{Shape(dims)};
    Array labels{Shape{options.microbatch}};
    Array targets{Shape{options.microbatch, options.outputs}};
    const std::int64_t size = options.sample.elements();
    for (std::int64_t i = 0; i < options.microbatch; ++i) {
      for (std::int64_t j = 0; j < size; ++j) features[i * size + j] = draw((first + i) * size + j);
      labels[i] = features[i * size] > 0 ? 1 : 0;
      for (std::int64_t j = 0; j < options.outputs; ++j) {
        targets[i * options.outputs + j] = features[i * size + j] * 2;
      }
    }
    return {{"features", features},
            {"labels", labels},
            {"targets", targets},
            {"position", Array{{2}, {static_cast<double>(step), static_cast<double>(first)}}}};
  }

  // The batch cut into this many leaves of microbatches.
  std::vector<std::vector<Bindings>> leaves(std::int64_t count, std::int64_t step) const {
    std::vector<std::vector<Bindings>> result(static_cast<std::size_t>(count));
    for (std::int64_t first = 0; first < kBatch; first += options.microbatch) {
      result[static_cast<std::size_t>(first * count / kBatch)].push_back(microbatch(first, step));
    }
    return result;
  }

  static double draw(std::int64_t index) {
    const RandomStream stream{5, random_stream("test"), 0};
    return 2.0 * double{uniform01(stream.bits(static_cast<std::uint64_t>(index)))} - 1.0;
  }

  static constexpr std::int64_t kBatch = 8;
  StepOptions options;
};

Bindings first_bindings(const Graph& graph, double learning_rate) {
  Bindings bindings;
  for (const State& state : graph.states) {
    const Value& value = graph.value(state.value);
    std::vector<float> values(static_cast<std::size_t>(value.type.shape.elements()));
    initialize(graph, state, 1, values);
    bindings[value.name] = {value.type.shape, {values.begin(), values.end()}};
  }
  bindings["learning_rate"] = {{}, {learning_rate}};
  bindings["batch_weight"] = {{}, {1.0 / Data::kBatch}};
  return bindings;
}

// The losses of `steps` steps, and the states after them.
struct Training {
  std::vector<double> losses;
  Bindings states;
};

Training train(StepOptions options, std::int64_t leaves, std::int64_t microbatches,
               std::int64_t steps, double learning_rate = 0.1) {
  options.microbatch = Data::kBatch / leaves / microbatches;
  const Data data(options);
  const Graph graph = build_training_step(options);
  verify(graph);
  Bindings bindings = first_bindings(graph, learning_rate);
  Training training;
  for (std::int64_t step = 0; step < steps; ++step) {
    ref::StepResult result = ref::evaluate_step(graph, bindings, data.leaves(leaves, step));
    training.losses.push_back(result.outputs.at("loss")[0]);
    training.states = result.next_states;
    result.next_states.merge(bindings);
    bindings = std::move(result.next_states);
  }
  return training;
}

void expect_equal(const Training& a, const Training& b) {
  for (std::size_t i = 0; i < a.losses.size(); ++i) EXPECT_NEAR(a.losses[i], b.losses[i], 1e-12);
  ASSERT_EQ(a.states.size(), b.states.size());
  for (const auto& [name, array] : a.states) {
    const Array& other = b.states.at(name);
    for (std::size_t i = 0; i < array.data.size(); ++i) {
      ASSERT_NEAR(array.data[i], other.data[i], 1e-12) << name << " " << i;
    }
  }
}

StepOptions tiny_mlp() {
  StepOptions options;
  options.model = {.name = "mlp", .hidden = {5}, .activation = "tanh", .dropout = 0.25};
  options.sample = {4};
  options.outputs = 2;
  return options;
}

TEST(TrainingStep, IsTheSameForAnyNumberOfLeavesAndMicrobatches) {
  const Training whole = train(tiny_mlp(), 1, 1, 5);
  expect_equal(whole, train(tiny_mlp(), 2, 1, 5));
  expect_equal(whole, train(tiny_mlp(), 4, 1, 5));
  expect_equal(whole, train(tiny_mlp(), 2, 2, 5));
}

TEST(TrainingStep, LossFalls) {
  StepOptions options = tiny_mlp();
  options.model.dropout = 0;
  const Training training = train(options, 2, 1, 60);
  EXPECT_LT(training.losses.back(), 0.2 * training.losses.front());
}

TEST(TrainingStep, RegressionLearnsALinearMap) {
  StepOptions options = tiny_mlp();
  options.model = {.name = "mlp", .hidden = {}};
  options.loss = StepOptions::Loss::kMeanSquaredError;
  const Training training = train(options, 2, 1, 120);
  EXPECT_LT(training.losses.back(), 1e-3 * training.losses.front());
}

// The loss and, of the binary cross-entropy, the count, from the logits of a prediction.
TEST(EvaluationStep, LossesOfNumbersAreMeansOverOutputsAndBatch) {
  using Loss = StepOptions::Loss;
  const auto expected = [](Loss loss, double x, double t) {
    const double d = std::abs(x - t), p = 1 / (1 + std::exp(-x));
    switch (loss) {
      case Loss::kL1:
        return d;
      case Loss::kHuber:
        return d <= 0.5 ? d * d / 2 : 0.5 * (d - 0.25);
      case Loss::kBinaryCrossEntropy:
        return -t * std::log(p) - (1 - t) * std::log(1 - p);
      default:
        return d * d;
    }
  };
  StepOptions options = tiny_mlp();
  options.microbatch = Data::kBatch;
  options.huber_delta = 0.5;
  const Graph prediction = build_prediction(options);
  Bindings bindings = first_bindings(prediction, 0);
  Bindings batch = Data(options).microbatch(0, 0);
  bindings["features"] = batch.at("features");
  const Array logits = ref::evaluate(
      prediction, bindings)[static_cast<std::size_t>(prediction.find_output("logits"))];
  Array& targets = batch.at("targets");
  for (std::size_t i = 0; i < targets.data.size(); ++i) {
    targets.data[i] = i % 4 == 0 ? 0.75 : targets.data[i] > 0;
  }
  for (const Loss loss :
       {Loss::kMeanSquaredError, Loss::kL1, Loss::kHuber, Loss::kBinaryCrossEntropy}) {
    options.loss = loss;
    const Graph graph = build_evaluation_step(options);
    verify(graph);
    const auto result = ref::evaluate_step(graph, first_bindings(graph, 0), {{batch}});
    double sum = 0, correct = 0;
    for (std::size_t i = 0; i < targets.data.size(); ++i) {
      sum += expected(loss, logits.data[i], targets.data[i]);
      correct += (logits.data[i] > 0) == (targets.data[i] > 0.5);
    }
    EXPECT_NEAR(result.outputs.at("loss")[0], sum / 2 / Data::kBatch, 1e-12);
    ASSERT_EQ(result.outputs.contains("correct"), loss == Loss::kBinaryCrossEntropy);
    if (result.outputs.contains("correct")) {
      EXPECT_GT(correct, 0);
      EXPECT_EQ(result.outputs.at("correct")[0], correct / 2);
    }
  }
}

TEST(TrainingStep, ConvolutionsAndNormsLearn) {
  StepOptions options;
  options.model = {.name = "resnet_small", .width = 2, .blocks = {1, 1}};
  options.sample = {1, 4, 4};
  options.outputs = 2;
  const Training training = train(options, 1, 1, 15, 0.05);
  EXPECT_LT(training.losses.back(), 0.7 * training.losses.front());
  EXPECT_NE(training.states.at("bn1.running_var")[0], 1);
}

TEST(EvaluationStep, UsesRunningStatisticsAndCounts) {
  StepOptions options;
  options.model = {.name = "resnet_small", .width = 2, .blocks = {1}};
  options.sample = {1, 4, 4};
  options.outputs = 2;
  options.label_smoothing = 0.5;  // of no effect in evaluation
  const auto evaluate = [&](std::int64_t microbatch) {
    options.microbatch = microbatch;
    const Graph graph = build_evaluation_step(options);
    verify(graph);
    return ref::evaluate_step(graph, first_bindings(graph, 0), Data(options).leaves(1, 0));
  };
  const ref::StepResult whole = evaluate(8);
  const ref::StepResult parts = evaluate(2);
  EXPECT_NEAR(whole.outputs.at("loss")[0], parts.outputs.at("loss")[0], 1e-12);
  EXPECT_EQ(whole.outputs.at("correct")[0], parts.outputs.at("correct")[0]);
  EXPECT_EQ(whole.next_states.at("bn1.running_mean").data, (std::vector{0.0, 0.0}));

  // The same from the logits of a prediction.
  options.microbatch = 8;
  const Graph prediction = build_prediction(options);
  verify(prediction);
  Bindings bindings = first_bindings(prediction, 0);
  const Bindings batch = Data(options).microbatch(0, 0);
  bindings["features"] = batch.at("features");
  const Array logits = ref::evaluate(
      prediction, bindings)[static_cast<std::size_t>(prediction.find_output("logits"))];
  double loss = 0, correct = 0;
  for (std::int64_t i = 0; i < 8; ++i) {
    const auto label = static_cast<std::int64_t>(batch.at("labels")[i]);
    const double margin = logits[2 * i + 1 - label] - logits[2 * i + label];
    loss += std::log1p(std::exp(margin)) / 8;
    correct += margin < 0 ? 1 : 0;
  }
  EXPECT_NEAR(whole.outputs.at("loss")[0], loss, 1e-12);
  EXPECT_EQ(whole.outputs.at("correct")[0], correct);
}

TEST(Step, EveryModelBuildsAllThreeGraphsWithTheSameParameters) {
  for (const std::string_view name : model_names()) {
    StepOptions options;
    options.model.name = name;
    options.model.dropout = 0.5;
    options.tokens = name == "gpt" || fills_masks(name);
    options.labelled = fills_masks(name) ? 3 : 0;
    options.model.width = 12;  // which heads divide
    options.sample = options.tokens ? Shape{16} : Shape{3, 32, 32};
    options.outputs = 10;
    options.microbatch = 2;
    const Graph training = build_training_step(options);
    const Graph evaluation = build_evaluation_step(options);
    const Graph prediction = build_prediction(options);
    for (const Graph* graph : {&training, &evaluation, &prediction}) {
      EXPECT_NO_THROW(verify(*graph)) << name;
    }
    for (const State& state : evaluation.states) {
      const Value& value = evaluation.value(state.value);
      const ValueId trained = training.find_state(value.name);
      ASSERT_NE(trained, kNoValue) << name << " " << value.name;
      EXPECT_EQ(training.type(trained), value.type) << name << " " << value.name;
      EXPECT_EQ(state.next, kNoValue) << name << " " << value.name;
    }
    EXPECT_EQ(evaluation.states.size(), prediction.states.size()) << name;
    EXPECT_EQ(evaluation.find_input("position"), kNoValue) << name;
    const auto updated = [](const State& state) { return state.next != kNoValue; };
    EXPECT_TRUE(std::ranges::all_of(training.states, updated)) << name;
    EXPECT_TRUE(std::ranges::none_of(evaluation.nodes, [](const Node& node) {
      return node.op.starts_with("dropout");
    })) << name;
  }
}

TEST(Step, RefusesSamplesAndMicrobatchesOfNothing) {
  StepOptions options = tiny_mlp();
  options.microbatch = 0;
  EXPECT_THROW(build_training_step(options), Error);
  options.microbatch = 1;
  options.sample = {3, 0, 2};
  EXPECT_THROW(build_evaluation_step(options), Error);
  options.sample = {};
  EXPECT_THROW(build_prediction(options), Error);
  options.sample = {4};
  options.outputs = 0;
  EXPECT_THROW(build_prediction(options), Error);
}

// Also with leaves unequally shared out.
TEST(Step, PartitionedOverRanksComputesTheSameOnEachOfThem) {
  StepOptions options{.model = {.name = "mlp", .hidden = {6}, .batch_norm = true},
                      .sample = {4},
                      .outputs = 3,
                      .microbatch = 2,
                      .optimizer = {.clip_norm = 0.1}};
  const Graph whole = build_training_step(options);
  parallel::Plan plan{.mesh = {{{"data", 3}}}};
  const Graph part = parallel::partition(whole, plan, 0);
  const Bindings bindings = first_bindings(whole, 0.1);
  const auto leaves = Data(options).leaves(4, 0);
  const ref::StepResult expected = ref::evaluate_step(whole, bindings, leaves);
  const std::vector<std::vector<std::vector<Bindings>>> of_ranks = {
      {leaves.begin(), leaves.begin() + 1},
      {leaves.begin() + 1, leaves.begin() + 3},
      {leaves.begin() + 3, leaves.end()}};
  const auto ranks = ref::evaluate_ranks({{{"data", 3}}}, std::vector<Graph>(3, part),
                                         std::vector<Bindings>(3, bindings), of_ranks);
  ASSERT_EQ(ranks.size(), 3U);
  for (const ref::StepResult& rank : ranks) {
    EXPECT_NEAR(rank.outputs.at("loss")[0], expected.outputs.at("loss")[0], 1e-12);
    for (const auto& [name, state] : expected.next_states) {
      for (std::size_t i = 0; i < state.data.size(); ++i) {
        ASSERT_NEAR(rank.next_states.at(name).data[i], state.data[i], 1e-12) << name;
      }
    }
  }
}

// One leaf of each rank, or one leaf of all samples.
TEST(Step, BatchNormOverLeavesIsThatOfTheWholeBatch) {
  for (const int size : {1, 2, 4}) {
    StepOptions options{.model = {.name = "resnet_small", .width = 4, .blocks = {1}},
                        .sample = {1, 4, 4},
                        .outputs = 3,
                        .microbatch = Data::kBatch,
                        .optimizer = {.clip_norm = 0.1}};
    const Graph whole = build_training_step(options);
    const Bindings bindings = first_bindings(whole, 0.1);
    const ref::StepResult expected =
        ref::evaluate_step(whole, bindings, Data(options).leaves(1, 0));
    options.microbatch /= size;
    options.batch_norm_over_leaves = true;
    parallel::Plan plan{.mesh = {{{"data", size}}}};
    const Graph part = parallel::partition(build_training_step(options), plan, 0);
    std::vector<std::vector<std::vector<Bindings>>> leaves_of_ranks;
    for (auto& leaf : Data(options).leaves(size, 0)) leaves_of_ranks.push_back({leaf});
    const auto ranks = static_cast<std::size_t>(size);
    for (const ref::StepResult& rank :
         ref::evaluate_ranks({{{"data", size}}}, std::vector<Graph>(ranks, part),
                             std::vector<Bindings>(ranks, bindings), leaves_of_ranks)) {
      EXPECT_NEAR(rank.outputs.at("loss")[0], expected.outputs.at("loss")[0], 1e-12) << size;
      for (const auto& [name, state] : expected.next_states) {
        for (std::size_t i = 0; i < state.data.size(); ++i) {
          ASSERT_NEAR(rank.next_states.at(name).data[i], state.data[i], 1e-12) << name;
        }
      }
    }
    if (size > 1) {
      EXPECT_THROW(ref::evaluate_step(part, bindings, Data(options).leaves(size, 0)), Error);
    }
  }
}

}  // namespace
}  // namespace concord::nn

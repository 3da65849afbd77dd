#include "concord/nn/layers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "concord/base/error.h"
#include "concord/graph/verifier.h"
#include "concord/kernels/ref/reference.h"
#include "concord/ops/reduction.h"
#include "concord/ops/step.h"

namespace concord::nn {
namespace {

using Kind = Initializer::Kind;

const State& state_named(const Graph& graph, std::string_view name) {
  for (const State& state : graph.states) {
    if (graph.value(state.value).name == name) return state;
  }
  CONCORD_CHECK(false, "no state \"{}\"", name);
}

TEST(Layers, StatesHavePytorchsNamesShapesAndStart) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId image = builder.input("image", {DType::kF32, {2, 6, 8, 8}});
  const auto scope = builder.scope("net");
  conv2d(builder, "conv", image, 4, 3, {.groups = 2});
  conv2d(builder, "wide", image, 4, 3, {.groups = 2}, /*bias=*/true, Initialization::kFanOut);
  linear(builder, "fc", flatten(builder, image), 5, /*bias=*/false);

  EXPECT_EQ(graph.type(state_named(graph, "net.conv.weight").value).shape, (Shape{4, 3, 3, 3}));
  EXPECT_EQ(graph.type(state_named(graph, "net.conv.bias").value).shape, Shape{4});
  EXPECT_EQ(graph.type(state_named(graph, "net.fc.weight").value).shape, (Shape{5, 384}));
  EXPECT_EQ(graph.find_state("net.fc.bias"), kNoValue);

  const auto expect_start = [&](std::string_view name, Kind kind, double value) {
    EXPECT_EQ(state_named(graph, name).initializer.kind, kind) << name;
    EXPECT_DOUBLE_EQ(state_named(graph, name).initializer.value, value) << name;
  };
  expect_start("net.conv.weight", Kind::kUniform, 1 / std::sqrt(27.0));
  expect_start("net.conv.bias", Kind::kUniform, 1 / std::sqrt(27.0));
  expect_start("net.wide.weight", Kind::kNormal, std::sqrt(2.0 / 36));
  expect_start("net.wide.bias", Kind::kConstant, 0);
  expect_start("net.fc.weight", Kind::kUniform, 1 / std::sqrt(384.0));
}

TEST(Layers, LinearAppliesWeightsAndBias) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("x", {DType::kF32, {1, 2}});
  const ValueId y = linear(builder, "fc", x, 3);
  const auto values = ref::evaluate(graph, {{"x", {{1, 2}, {1, 10}}},
                                            {"fc.weight", {{3, 2}, {1, 2, 3, 4, 5, 6}}},
                                            {"fc.bias", {{3}, {0.5, 0, -0.5}}}});
  EXPECT_EQ(values[static_cast<std::size_t>(y)].data, (std::vector{21.5, 43.0, 64.5}));
}

// One channel, two leaves; the first is cut into two microbatches of two samples, the second is one
// microbatch of two. Means 2, 6 and 10; variances 1, 4 and 9, twice that unbiased (n = 2).
TEST(BatchNorm, RunningStatisticsAverageTheMicrobatches) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("x", {DType::kF32, {2, 1}});
  const ValueId weight = builder.input("batch_weight", {DType::kF32, {}}, Input::Kind::kStep);
  const ValueId y = batch_norm(builder, "bn", x, {.mode = Mode::kTrain, .batch_weight = weight});
  builder.output("sum", ops::leaf_sum(builder, ops::reduce_sum(builder, y, {})));
  verify(graph);
  const auto leaf = [](double a, double b) { return ref::Bindings{{"x", {{2, 1}, {a, b}}}}; };
  const ref::StepResult result = ref::evaluate_step(graph,
                                                    {{"batch_weight", {{}, {1.0 / 6}}},
                                                     {"bn.weight", {{1}, {1}}},
                                                     {"bn.bias", {{1}, {0}}},
                                                     {"bn.running_mean", {{1}, {1}}},
                                                     {"bn.running_var", {{1}, {2}}}},
                                                    {{leaf(1, 3), leaf(4, 8)}, {leaf(7, 13)}});
  EXPECT_NEAR(result.next_states.at("bn.running_mean")[0], 0.9 * 1 + 0.1 * (2 + 6 + 10) / 3, 1e-12);
  EXPECT_NEAR(result.next_states.at("bn.running_var")[0], 0.9 * 2 + 0.1 * 2 * (1.0 + 4 + 9) / 3,
              1e-12);
  EXPECT_EQ(state_named(graph, "bn.running_mean").role, State::Role::kStatistic);
}

TEST(BatchNorm, VarianceOfASingleValueStaysBiased) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("x", {DType::kF32, {1, 1}});
  const ValueId weight = builder.input("batch_weight", {DType::kF32, {}}, Input::Kind::kStep);
  batch_norm(builder, "bn", x, {.mode = Mode::kTrain, .batch_weight = weight});
  const ref::StepResult result = ref::evaluate_step(graph,
                                                    {{"batch_weight", {{}, {1}}},
                                                     {"bn.weight", {{1}, {1}}},
                                                     {"bn.bias", {{1}, {0}}},
                                                     {"bn.running_mean", {{1}, {0}}},
                                                     {"bn.running_var", {{1}, {1}}}},
                                                    {{{{"x", {{1, 1}, {5}}}}}});
  EXPECT_NEAR(result.next_states.at("bn.running_mean")[0], 0.5, 1e-12);
  EXPECT_NEAR(result.next_states.at("bn.running_var")[0], 0.9, 1e-12);
}

TEST(BatchNorm, EvaluationUsesTheRunningStatistics) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("x", {DType::kF32, {1, 1}});
  const ValueId y = batch_norm(builder, "bn", x, {.mode = Mode::kEvaluate}, {.epsilon = 0});
  const auto values = ref::evaluate(graph, {{"x", {{1, 1}, {7}}},
                                            {"bn.weight", {{1}, {3}}},
                                            {"bn.bias", {{1}, {1}}},
                                            {"bn.running_mean", {{1}, {5}}},
                                            {"bn.running_var", {{1}, {4}}}});
  EXPECT_NEAR(values[static_cast<std::size_t>(y)][0], 4, 1e-12);
  EXPECT_EQ(state_named(graph, "bn.running_mean").next, kNoValue);
}

TEST(Dropout, DropoutsOfOneModelDrawDifferently) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("x", {DType::kF32, {1, 64}});
  const StepContext context{
      .mode = Mode::kTrain, .seed = 3, .position = builder.input("position", {DType::kI64, {2}})};
  const ValueId first = dropout(builder, "dropout1", x, 0.5, context);
  const ValueId second = dropout(builder, "dropout2", x, 0.5, context);
  EXPECT_EQ(dropout(builder, "dropout3", x, 0.5, {.mode = Mode::kEvaluate}), x);
  const auto values = ref::evaluate(
      graph, {{"x", {{1, 64}, std::vector<double>(64, 1.0)}}, {"position", {{2}, {0, 0}}}});
  EXPECT_NE(values[static_cast<std::size_t>(first)].data,
            values[static_cast<std::size_t>(second)].data);
}

TEST(Layers, ErrorsNameTheLayerAndTheShape) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("x", {DType::kF32, {2, 6, 8, 8}});
  const auto scope = builder.scope("net");
  const auto message = [](const auto& build) -> std::string {
    try {
      build();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  using testing::AllOf, testing::HasSubstr;
  EXPECT_THAT(message([&] { linear(builder, "fc", x, 3); }),
              AllOf(HasSubstr("net.fc"), HasSubstr("[2, 6, 8, 8]")));
  EXPECT_THAT(message([&] { conv2d(builder, "conv", x, 4, 3, {.groups = 4}); }),
              AllOf(HasSubstr("net.conv"), HasSubstr("6 channels"), HasSubstr("4 groups")));
  EXPECT_THAT(message([&] { conv2d(builder, "conv9", x, 4, 9); }), HasSubstr("net.conv9"));
}

}  // namespace
}  // namespace concord::nn

// The printouts in docs/backpropagation.md are what the library prints.
#include <gtest/gtest.h>

#include <set>
#include <sstream>
#include <utility>

#include "concord/autodiff/backpropagate.h"
#include "concord/base/file.h"
#include "concord/graph/printer.h"
#include "concord/graph/verifier.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/matmul.h"
#include "concord/ops/optimizer.h"
#include "concord/ops/softmax.h"
#include "concord/ops/step.h"

namespace concord {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

void expect_documented(const Graph& graph) {
  const std::vector<std::string> page =
      lines_of(read_file(CONCORD_SOURCE_DIR "/docs/backpropagation.md"));
  const std::set<std::string> documented(page.begin(), page.end());
  for (const std::string& line : lines_of(to_string(graph))) {
    EXPECT_TRUE(documented.contains(line)) << line;
  }
}

// Section 5.
TEST(DocumentedPrintouts, ValueUsedSeveralTimes) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("x", {DType::kF32, {}});
  const ValueId squared = ops::mul(builder, x, x);
  const ValueId scaled = ops::scale(builder, x, 3);
  const ValueId loss = ops::add(builder, squared, scaled);
  backpropagate(builder, loss, std::vector{x});
  expect_documented(graph);
}

ValueId layer(GraphBuilder& builder, const char* name, ValueId x, std::int64_t units) {
  const auto scope = builder.scope(name);
  const std::int64_t features = builder.shape(x)[1];
  const auto state = [&](const char* state_name, Shape shape) {
    return builder.state(state_name, {DType::kF32, std::move(shape)}, State::Role::kParameter, {});
  };
  const ValueId w = state("weight", {units, features});
  const ValueId b = state("bias", {units});
  return ops::matmul(builder, x, w, {.transpose_b = true}, b);
}

// Section 6: the program there.
TEST(DocumentedPrintouts, TwoLayerNetwork) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("features", {DType::kF32, {4, 3}});
  const ValueId labels = builder.input("labels", {DType::kI32, {4}});
  const ValueId weight = builder.input("batch_weight", {DType::kF32, {}}, Input::Kind::kStep);
  const ValueId rate = builder.input("learning_rate", {DType::kF32, {}}, Input::Kind::kStep);
  const ValueId hidden = ops::relu(builder, layer(builder, "fc1", x, 5));
  const ValueId logits = layer(builder, "fc2", hidden, 2);
  const ValueId loss = ops::softmax_cross_entropy(builder, logits, labels, weight);
  expect_documented(graph);

  std::vector<ValueId> parameters;
  for (const State& state : graph.states) parameters.push_back(state.value);
  std::vector<ValueId> gradients = backpropagate(builder, loss, parameters);
  expect_documented(graph);

  for (ValueId& gradient : gradients) gradient = ops::leaf_sum(builder, gradient);
  builder.output("loss", ops::leaf_sum(builder, loss));
  const ValueId one = ops::constant(builder, {DType::kF32, {}}, 1.0);
  const ops::SgdUpdate update = ops::sgd_update(builder, rate, one, parameters, gradients, {}, {});
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    builder.set_next(parameters[i], update.parameters[i]);
  }
  verify(graph);
  expect_documented(graph);
}

}  // namespace
}  // namespace concord

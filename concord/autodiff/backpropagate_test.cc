#include "concord/autodiff/backpropagate.h"

#include <gtest/gtest.h>

#include "concord/base/error.h"
#include "concord/graph/verifier.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/matmul.h"
#include "concord/ops/step.h"

namespace concord {
namespace {

TEST(Backpropagate, NamesTheOpWithoutAGradientRule) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("x", {DType::kF32, {1}});
  const ValueId loss = ops::leaf_sum(builder, x);
  try {
    backpropagate(builder, loss, std::vector{x});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("leaf_sum"), std::string::npos) << error.what();
  }
}

TEST(Backpropagate, RefusesALossThatIsNotAScalar) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("x", {DType::kF32, {2}});
  EXPECT_THROW(backpropagate(builder, x, std::vector{x}), Error);
}

TEST(Backpropagate, IndependentValueHasNoGradient) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("x", {DType::kF32, {1}});
  const ValueId y = builder.input("y", {DType::kF32, {1}});
  const auto gradients = backpropagate(builder, ops::scale(builder, x, 2.0), std::vector{x, y});
  EXPECT_NE(gradients[0], kNoValue);
  EXPECT_EQ(gradients[1], kNoValue);
  verify(graph);
}

TEST(Builder, NamesTheLayerAndBothShapes) {
  Graph graph;
  GraphBuilder builder(graph);
  const ValueId x = builder.input("x", {DType::kF32, {2, 3}});
  const ValueId w = builder.input("w", {DType::kF32, {4, 5}});
  const auto scope = builder.scope("fc1");
  try {
    ops::matmul(builder, x, w);
    FAIL();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("fc1"), std::string::npos) << message;
    EXPECT_NE(message.find("[2, 3]"), std::string::npos) << message;
    EXPECT_NE(message.find("[4, 5]"), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace concord

#include "concord/ops/linear_cross_entropy.h"

#include <gtest/gtest.h>

#include "concord/autodiff/backpropagate.h"
#include "concord/kernels/ref/gradient_check.h"
#include "concord/ops/matmul.h"
#include "concord/ops/softmax.h"
#include "concord/ops/step.h"

namespace concord::ref {
namespace {

// The definition: loss, count and gradients of softmax_cross_entropy, of logits that are kept.
TEST(LinearCrossEntropy, IsThatOfTheLogits) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {4, 3}}), w = b.input("w", {DType::kF32, {5, 3}});
  const ValueId bias = b.input("bias", {DType::kF32, {5}});
  const ValueId labels = b.input("labels", {DType::kI32, {4}});
  const ValueId weight = ops::constant(b, {DType::kF32, {}}, 0.25);
  const ValueId logits = ops::matmul(b, x, w, {.transpose_b = true}, bias);
  const ops::LossAndCount fused =
      ops::linear_cross_entropy(b, {x, w, bias}, labels, weight, 0.1, 3);
  const ValueId loss = ops::softmax_cross_entropy(b, logits, labels, weight, 0.1, 3);
  std::vector<ValueId> a = {fused.loss, fused.correct};
  std::vector<ValueId> c = {loss, ops::count_correct(b, logits, labels, 3)};
  for (const auto& [root, list] : {std::pair{fused.loss, &a}, {loss, &c}}) {
    const auto gradients = backpropagate(b, root, std::vector{x, w, bias});
    list->insert(list->end(), gradients.begin(), gradients.end());
  }
  const auto draws = [](const Shape& shape) {
    Array array(shape);
    for (std::size_t i = 0; i < array.data.size(); ++i) {
      array.data[i] = static_cast<double>(i * 37 % 19) / 5 - 2;
    }
    return array;
  };
  const std::vector<Array> values = evaluate(graph, {{"x", draws({4, 3})},
                                                     {"w", draws({5, 3})},
                                                     {"bias", draws({5})},
                                                     {"labels", Array({4}, {0, 3, 4, 2})}});
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto& given = values[static_cast<std::size_t>(a[i])].data;
    const auto& expected = values[static_cast<std::size_t>(c[i])].data;
    for (std::size_t j = 0; j < expected.size(); ++j) EXPECT_NEAR(given[j], expected[j], 1e-12);
  }
}

TEST(Gradient, LinearCrossEntropy) {
  for (const bool bias : {false, true}) {
    std::vector<Shape> shapes = {{3, 4}, {5, 4}};
    if (bias) shapes.push_back({5});
    EXPECT_EQ("",
              check_gradients(
                  {.shapes = shapes,
                   .build =
                       [&](GraphBuilder& b, const std::vector<ValueId>& x) {
                         const ValueId labels = b.input("labels", {DType::kI32, {3}});
                         const ValueId weight = b.input("weight", {DType::kF32, {}});
                         return ops::linear_cross_entropy(b, {x[0], x[1], bias ? x[2] : kNoValue},
                                                          labels, weight, 0.1, 2)
                             .loss;
                       },
                   .fixed = {{"labels", Array({3}, {4, 0, 2})}, {"weight", Array({}, {0.5})}}}));
  }
}

}  // namespace
}  // namespace concord::ref

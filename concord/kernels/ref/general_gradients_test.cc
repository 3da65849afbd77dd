// Gradient rules of the general ops against central differences (kernels/ref/gradient_check.h).
#include <gtest/gtest.h>

#include "concord/graph/op.h"
#include "concord/kernels/ref/gradient_check.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/dropout.h"
#include "concord/ops/gather.h"
#include "concord/ops/loss.h"
#include "concord/ops/reduction.h"
#include "concord/ops/rotary_embedding.h"
#include "concord/ops/shape_ops.h"
#include "concord/ops/softmax.h"
#include "concord/ops/step.h"

namespace concord::ref {
namespace {

using Inputs = std::vector<ValueId>;

// "" where the gradient of `build` on inputs of these shapes is right.
std::string check(std::vector<Shape> shapes,
                  std::function<ValueId(GraphBuilder&, const Inputs&)> build, Bindings fixed = {}) {
  return check_gradients(
      {.shapes = std::move(shapes), .build = std::move(build), .fixed = std::move(fixed)});
}

// Numbers well above 0, where logarithms, roots and quotients are tame.
const Bindings kPositive = {{"x0", Array({2, 3}, {0.5, 1.5, 2, 3, 0.75, 1})},
                            {"x1", Array({3}, {1.25, 0.6, 2.5})}};

TEST(Gradient, SubAndDivWithBroadcasting) {
  EXPECT_EQ("", check({{2, 3}, {3}}, [](auto& b, auto& x) { return ops::sub(b, x[0], x[1]); }));
  EXPECT_EQ("", check({{3}, {2, 3}}, [](auto& b, auto& x) { return ops::sub(b, x[0], x[1]); }));
  const auto divide = [](GraphBuilder& b, const Inputs& x) { return ops::div(b, x[0], x[1]); };
  const auto divided = [](GraphBuilder& b, const Inputs& x) { return ops::div(b, x[1], x[0]); };
  EXPECT_EQ("", check({{2, 3}, {3}}, divide, kPositive));
  EXPECT_EQ("", check({{2, 3}, {3}}, divided, kPositive));
}

TEST(Gradient, UnaryArithmetic) {
  for (const auto function : {ops::neg, ops::exp, ops::log, ops::sqrt, ops::square}) {
    EXPECT_EQ("", check(
                      {{2, 3}}, [=](auto& b, auto& x) { return function(b, x[0]); }, kPositive));
  }
}

TEST(Gradient, Activations) {
  for (const auto function : {ops::sigmoid, ops::tanh, ops::silu}) {
    EXPECT_EQ("", check({{4, 5}}, [=](auto& b, auto& x) { return function(b, x[0]); }));
  }
  for (const auto form : {ops::GeluForm::kExact, ops::GeluForm::kTanh}) {
    EXPECT_EQ("", check({{4, 5}}, [=](auto& b, auto& x) { return ops::gelu(b, x[0], form); }));
  }
}

TEST(Gradient, Reductions) {
  for (const auto reduce : {ops::reduce_sum, ops::reduce_mean, ops::reduce_max}) {
    for (const bool keep : {false, true}) {
      for (const std::vector<std::int64_t>& dims :
           {std::vector<std::int64_t>{}, {0}, {-1}, {0, 2}}) {
        EXPECT_EQ(
            "", check({{2, 3, 4}}, [&](auto& b, auto& x) { return reduce(b, x[0], dims, keep); }));
      }
    }
  }
}

TEST(Gradient, MaximumIsSharedAmongTies) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {4}});
  const ValueId largest = ops::reduce_max(b, x, {}, true);
  const ValueId dy = b.input("dy", {DType::kF32, {1}});
  const Node& node = graph.node(graph.value(largest).producer);
  const std::vector<ValueId> output_gradients = {dy};
  const Node copy = node;
  GradientContext context{b, copy, output_gradients};
  const ValueId dx = find_op("max_to_shape").gradient(context)[0];
  const std::vector<Array> values =
      evaluate(graph, {{"x", Array({4}, {2, 5, 1, 5})}, {"dy", Array({1}, {3})}});
  EXPECT_EQ(values[static_cast<std::size_t>(dx)].data, (std::vector<double>{0, 1.5, 0, 1.5}));
}

TEST(Gradient, ShapeOps) {
  EXPECT_EQ("", check({{2, 6}}, [](auto& b, auto& x) { return ops::reshape(b, x[0], {3, -1}); }));
  EXPECT_EQ("", check({{2, 3, 4}}, [](auto& b, auto& x) {
              return ops::transpose(b, x[0], {2, 0, 1});
            }));
  EXPECT_EQ("", check({{2, 1, 3}, {2, 4, 3}}, [](auto& b, auto& x) {
              return ops::concat(b, {x[0], x[1], x[0]}, 1);
            }));
  EXPECT_EQ("", check({{2, 5, 3}}, [](auto& b, auto& x) { return ops::slice(b, x[0], -2, 1, 4); }));
  EXPECT_EQ("",
            check({{2, 2, 3}}, [](auto& b, auto& x) { return ops::pad_slice(b, x[0], 1, 1, 5); }));
  EXPECT_EQ("", check({{2, 3}}, [](auto& b, auto& x) {
              return ops::cast(b, ops::cast(b, x[0], DType::kF64), DType::kF32);
            }));
}

TEST(Gradient, Split) {
  EXPECT_EQ("", check({{2, 6, 3}}, [](auto& b, auto& x) {
              const std::vector<ValueId> parts = ops::split(b, x[0], 1, {2, 2, 2});
              return ops::mul(b, parts[0], parts[2]);
            }));
}

TEST(Gradient, GatherAndEmbedding) {
  const Bindings fixed = {{"indices", Array({2, 3}, {2, 0, 2, 2, 1, -1})}};
  const auto gather = [](std::int64_t dim) {
    return [=](GraphBuilder& b, const Inputs& x) {
      return ops::gather(b, x[0], b.input("indices", {DType::kI32, {2, 3}}), dim);
    };
  };
  EXPECT_EQ("", check({{3, 2, 4}}, gather(0), fixed));
  EXPECT_EQ("", check({{2, 3, 4}}, gather(1), fixed));
  EXPECT_EQ("", check({{4, 3}}, gather(-1), fixed));
  EXPECT_EQ("", check({{6, 4}},
                      [](GraphBuilder& b, const Inputs& x) {
                        return ops::embedding(b, x[0], b.input("ids", {DType::kI32, {5}}));
                      },
                      {{"ids", Array({5}, {5, 0, 5, 2, 5})}}));
}

TEST(Gradient, RotaryEmbedding) {
  EXPECT_EQ("", check({{2, 3, 2, 6}}, [](auto& b, auto& x) {
              return ops::rotary_embedding(b, x[0], {.base = 100, .first_position = 5, .heads = 1});
            }));
}

TEST(Gradient, Softmax) {
  EXPECT_EQ("", check({{2, 3, 5}}, [](auto& b, auto& x) { return ops::softmax(b, x[0]); }));
}

TEST(Gradient, SoftmaxCrossEntropy) {
  const Bindings fixed = {{"labels", Array({3}, {4, 0, 2})}, {"weight", Array({}, {0.5})}};
  for (const std::optional<std::int32_t> ignored : {std::optional<std::int32_t>(), {0}}) {
    for (const double smoothing : {0.0, 0.1}) {
      EXPECT_EQ("", check(
                        {{3, 5}},
                        [=](GraphBuilder& b, const Inputs& x) {
                          const ValueId labels = b.input("labels", {DType::kI32, {3}});
                          const ValueId weight = b.input("weight", {DType::kF32, {}});
                          return ops::softmax_cross_entropy(b, x[0], labels, weight, smoothing,
                                                            ignored);
                        },
                        fixed));
    }
  }
}

TEST(Gradient, MeanSquaredError) {
  EXPECT_EQ(
      "", check({{3, 2, 2}, {3, 2, 2}}, [](GraphBuilder& b, const Inputs& x) {
        return ops::mean_squared_error(b, x[0], x[1], ops::constant(b, {DType::kF32, {}}, 0.25));
      }));
}

TEST(Gradient, LossesOfElements) {
  const auto loss = [](auto function) {
    return [=](GraphBuilder& b, const Inputs& x) {
      return function(b, x[0], x[1], ops::constant(b, {DType::kF32, {}}, 0.25));
    };
  };
  const auto huber = [](GraphBuilder& b, ValueId x, ValueId t, ValueId weight) {
    return ops::huber_loss(b, x, t, weight, 0.7);
  };
  EXPECT_EQ("", check({{3, 4}, {3, 4}}, loss(ops::l1_loss)));
  EXPECT_EQ("", check({{3, 4}, {3, 4}}, loss(huber)));
  EXPECT_EQ("", check({{3, 4}, {3, 4}}, loss(ops::binary_cross_entropy_with_logits)));
}

TEST(Gradient, AbsAndClamp) {
  EXPECT_EQ("", check({{3, 5}}, [](auto& b, auto& x) { return ops::abs(b, x[0]); }));
  EXPECT_EQ("", check({{4, 5}}, [](auto& b, auto& x) { return ops::clamp(b, x[0], -0.4, 0.8); }));
}

TEST(Gradient, Dropout) {
  EXPECT_EQ("", check({{4, 6}},
                      [](GraphBuilder& b, const Inputs& x) {
                        const ValueId position = b.input("position", {DType::kI64, {2}});
                        return ops::dropout(b, x[0], position, {.rate = 0.3, .seed = 5});
                      },
                      {{"position", Array({2}, {7, 20})}}));
}

}  // namespace
}  // namespace concord::ref

// What the general ops refuse, and that their messages name what was given.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/base/error.h"
#include "concord/ops/activation.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/attention.h"
#include "concord/ops/dropout.h"
#include "concord/ops/gather.h"
#include "concord/ops/linear_cross_entropy.h"
#include "concord/ops/loss.h"
#include "concord/ops/matmul.h"
#include "concord/ops/optimizer.h"
#include "concord/ops/reduction.h"
#include "concord/ops/rotary_embedding.h"
#include "concord/ops/shape_ops.h"
#include "concord/ops/softmax.h"

namespace concord::ops {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

class Refusal : public testing::Test {
 protected:
  ValueId input(DType dtype, Shape shape) {
    return b.input("x" + std::to_string(graph.inputs.size()), {dtype, std::move(shape)});
  }
  void expect(const std::function<void()>& build, const char* message) {
    EXPECT_THAT(build, ThrowsMessage<Error>(HasSubstr(message)));
  }

  Graph graph;
  GraphBuilder b{graph};
  ValueId matrix = input(DType::kF32, {2, 3});
  ValueId vector = input(DType::kF32, {2});
  ValueId scalar = input(DType::kF32, {});
  ValueId labels = input(DType::kI32, {2});
  ValueId position = input(DType::kI64, {});
};

TEST_F(Refusal, Arithmetic) {
  expect([&] { add(b, matrix, vector); }, "[2, 3] and [2] do not broadcast");
  expect([&] { add(b, vector, labels); }, "f32[2] and i32[2]");
  expect([&] { relu(b, labels); }, "floating point, given i32[2]");
}

TEST_F(Refusal, ShapeOps) {
  expect([&] { reshape(b, matrix, {4, 2}); }, "6 elements");
  expect([&] { reshape(b, matrix, {-1, -1}); }, "more than one extent open");
  expect([&] { reshape(b, matrix, {4, -1}); }, "do not fill");
  expect([&] { reshape(b, matrix, {-2, -3}); }, "is not a shape");
  expect([&] { transpose(b, matrix, {0, 0}); }, "not a permutation");
  expect([&] { transpose(b, matrix, {0}); }, "not a permutation");
  expect([&] { transpose(b, matrix, {1, 2}); }, "not a permutation");
  expect([&] { concat(b, {matrix, vector}, 0); }, "differ in more than dim 0");
  expect([&] { concat(b, {}, 0); }, "at least one value");
  expect([&] { slice(b, matrix, 1, 2, 4); }, "[2, 4) does not lie in dim 1");
  expect([&] { slice(b, matrix, 2, 0, 1); }, "no dim 2");
  expect([&] { split(b, matrix, 1, {1, 1}); }, "[1, 1] do not fill dim 1 of [2, 3]");
  expect([&] { split(b, matrix, 1, {4, -1}); }, "do not fill");
  expect([&] { split(b, matrix, 1, {}); }, "do not fill");
  expect([&] { pad_slice(b, matrix, 1, 2, 4); }, "does not fit 4 indices");
  expect([&] { dynamic_slice(b, matrix, scalar, 1, 2); }, "start must be i64[], given f32[]");
  expect([&] { dynamic_slice(b, matrix, position, 1, 4); }, "4 indices from 0 on do not lie in");
  expect([&] { dynamic_update_slice(b, matrix, vector, position, 1); },
         "differ in more than dim 1");
  expect([&] { dynamic_update_slice(b, vector, matrix, position, 0); },
         "differ in more than dim 0");
  expect(
      [&] {
        dynamic_update_slice(b, matrix, input(DType::kF32, {2, 4}), position, 1);
      },
      "4 indices from 0 on");
}

TEST_F(Refusal, Gather) {
  expect([&] { gather(b, matrix, vector, 0); }, "the indices are f32[2]; expected i32");
  expect([&] { gather(b, matrix, labels, 2); }, "no dim 2");
  expect([&] { embedding(b, vector, labels); }, "the table is f32[2]; expected");
}

TEST_F(Refusal, RotaryEmbedding) {
  expect([&] { rotary_embedding(b, matrix); }, "[2, 3]; expected [N, T, H, D] with D even");
  const ValueId heads = input(DType::kF32, {1, 3, 2, 4});
  expect([&] { rotary_embedding(b, heads, {.base = 0}); }, "base = 0");
  expect([&] { rotary_embedding(b, heads, {.heads = 3}); }, "3 heads");
  expect([&] { rotary_embedding(b, heads, {.position = scalar}); }, "position must be i64[]");
}

TEST_F(Refusal, Reductions) {
  expect([&] { reduce_sum(b, matrix, {2}); }, "no dim 2");
  expect([&] { reduce_max(b, input(DType::kF32, {0, 3}), {0}); }, "no maximum");
}

TEST_F(Refusal, Losses) {
  expect([&] { softmax_cross_entropy(b, matrix, vector, scalar); }, "labels i32[2], given f32[2]");
  expect([&] { softmax_cross_entropy(b, matrix, labels, vector); }, "weight must be f32[]");
  expect([&] { softmax_cross_entropy(b, matrix, labels, scalar, 1.0); }, "label_smoothing = 1");
  expect([&] { mean_squared_error(b, matrix, vector, scalar); }, "f32[2, 3] and target f32[2]");
  expect([&] { l1_loss(b, scalar, scalar, scalar); }, "f32[]: expected [N, ...]");
  expect([&] { huber_loss(b, matrix, matrix, scalar, 0); }, "delta = 0: expected a positive");
  expect([&] { binary_cross_entropy_with_logits(b, vector, labels, scalar); },
         "f32[2] and target i32[2]");
  expect([&] { clamp(b, matrix, 1, 0); }, "low = 1 and high = 0");
  expect([&] { dropout(b, matrix, labels, {}); }, "i64[2], given i32[2]");
}

TEST_F(Refusal, Attention) {
  const ValueId q = input(DType::kF32, {2, 5, 6, 8}), k = input(DType::kF32, {2, 4, 3, 8});
  expect([&] { attention(b, matrix, k, k); }, "q is f32[2, 3]; expected [samples, positions");
  expect([&] { attention(b, q, k, q); }, "v f32[2, 5, 6, 8]; expected q [N, T, H, D] and k and v");
  expect([&] { attention(b, q, k, k, {.causal = true}); }, "5 queries to 4 keys");
  const ValueId four = input(DType::kF32, {2, 5, 4, 8});
  expect([&] { attention(b, q, four, four); }, "6 heads of queries and 4 of keys");
  expect([&] { packed_attention(b, q, 3); }, "qkv is f32[2, 5, 6, 8]; with 3 groups");
  expect([&] { packed_attention(b, q, 0); }, "with 0 groups");
  expect([&] { cached_attention(b, q, k, position); }, "expected q [N, T, H, D] and kv [N, S, 2 G");
  expect(
      [&] {
        cached_attention(b, q, input(DType::kF32, {2, 4, 4, 8}), position);
      },
      "5 queries to 4 keys");
  expect([&] { cached_attention(b, q, q, scalar); }, "position must be i64[]");
}

TEST_F(Refusal, Updates) {
  expect([&] { sgd_update(b, scalar, scalar, {matrix}, {vector}, {}, {}); },
         "f32[2, 3] and f32[2]");
  expect([&] { sgd_update(b, scalar, scalar, {matrix}, {matrix}, {}, {.momentum = 0.9}); },
         "3 lists");
  expect([&] { sgd_update(b, vector, scalar, {matrix}, {matrix}, {}, {}); }, "must be f32[]");
  expect([&] { clip_factor(b, scalar, 0); }, "max_norm = 0");
}

TEST_F(Refusal, LinearCrossEntropy) {
  const ValueId other = input(DType::kF32, {5, 4}), w = input(DType::kF32, {5, 3});
  const auto loss = [&](LinearLayer layer, ValueId of, double smoothing = 0) {
    return [=, this] { linear_cross_entropy(b, layer, of, scalar, smoothing); };
  };
  expect(loss({matrix, other}, labels), "given x f32[2, 3] and w f32[5, 4]");
  expect(loss({matrix, w}, vector), "an i32 label for each row, given f32[2]");
  expect(loss({matrix, w, vector}, labels), "the bias is f32[2]; expected [5]");
  expect(loss({matrix, w}, labels, 1), "label_smoothing = 1");
}

TEST(LinearLayerOf, LooksThroughReshapesAtProductsWithTransposedWeights) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {6, 4}}), w = b.input("w", {DType::kF32, {5, 4}});
  const ValueId bias = b.input("bias", {DType::kF32, {5}});
  const ValueId logits = matmul(b, x, w, {.transpose_b = true}, bias);
  const auto layer = linear_layer_of(graph, reshape(b, logits, {2, 3, 5}));
  ASSERT_TRUE(layer);
  EXPECT_EQ(std::tuple(layer->x, layer->w, layer->bias), std::tuple(x, w, bias));
  EXPECT_FALSE(linear_layer_of(graph, reshape(b, logits, {5, 6})));
  EXPECT_FALSE(linear_layer_of(graph, matmul(b, w, transpose(b, x, {1, 0}))));
  EXPECT_FALSE(linear_layer_of(graph, relu(b, logits)));
  EXPECT_FALSE(linear_layer_of(graph, x));
}

}  // namespace
}  // namespace concord::ops

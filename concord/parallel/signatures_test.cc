// Every signature of every rule, by itself: one node of a small graph is computed by the ranks as
// the signature says, and all else by each of them.
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "concord/autodiff/backpropagate.h"
#include "concord/graph/verifier.h"
#include "concord/kernels/ref/difference.h"
#include "concord/kernels/ref/reference.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/attention.h"
#include "concord/ops/dropout.h"
#include "concord/ops/gather.h"
#include "concord/ops/labels.h"
#include "concord/ops/linear_cross_entropy.h"
#include "concord/ops/normalization.h"
#include "concord/ops/reduction.h"
#include "concord/ops/rotary_embedding.h"
#include "concord/ops/shape_ops.h"
#include "concord/ops/softmax.h"
#include "concord/parallel/axis_plan.h"
#include "concord/parallel/candidates.h"

namespace concord::parallel {
namespace {

using Inputs = std::vector<ValueId>;

struct OpCase {
  std::vector<TensorType> inputs;
  // Returns what is differentiated, kNoValue for nothing.
  std::function<ValueId(GraphBuilder&, const Inputs&)> build;
  ref::Bindings fixed = {};  // inputs "x0", "x1", ... that are not random
};

struct Evaluated {
  Graph graph;
  ref::Bindings bindings;
};

// The nodes, those of their gradient, and every value as an output.
Evaluated built(const OpCase& given) {
  Evaluated result;
  GraphBuilder b(result.graph);
  std::mt19937 random(5);
  const auto add_input = [&](const std::string& name, const TensorType& type) {
    ref::Array array(type.shape);
    for (double& x : array.data) x = static_cast<double>(random() % 2001) / 1000 - 1;
    const auto fixed = given.fixed.find(name);
    result.bindings[name] = fixed == given.fixed.end() ? array : fixed->second;
    return b.input(name, type, Input::Kind::kStep);
  };
  Inputs inputs, differentiated;
  for (std::size_t i = 0; i < given.inputs.size(); ++i) {
    inputs.push_back(add_input("x" + std::to_string(i), given.inputs[i]));
    if (is_floating(given.inputs[i].dtype)) differentiated.push_back(inputs.back());
  }
  const ValueId y = given.build(b, inputs);
  if (y != kNoValue) {
    const ValueId weights = add_input("weights", b.type(y));
    backpropagate(b, ops::reduce_sum(b, ops::mul(b, y, weights), {}), differentiated);
  }
  for (const Node& node : result.graph.nodes) {
    for (const ValueId id : node.outputs) b.output("v" + std::to_string(id), id);
  }
  return result;
}

std::vector<Placement> plain_and_in_sections(const TensorType& type) {
  std::vector<Placement> splits;
  for (int d = 0; d < type.shape.rank(); ++d) splits.push_back(Placement::split(d, {2}));
  return splits;
}

// The first node and signature that differ, "" where none does; counts the signatures tried.
std::string check(const OpCase& given, int ranks, int& tried) {
  const auto [graph, bindings] = built(given);
  const ref::StepResult expected = ref::evaluate_step(graph, bindings, {{{}}});
  const Mesh mesh{{{"tensor", ranks}}};
  AxisPlan whole;
  for (const Node& node : graph.nodes) {
    whole.nodes.push_back(
        {std::vector<Placement>(node.inputs.size()), std::vector<Placement>(node.outputs.size())});
  }
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    std::vector<std::vector<Placement>> known;
    for (const ValueId id : node.inputs) known.push_back(plain_and_in_sections(graph.type(id)));
    for (const ValueId id : node.outputs) known.push_back(plain_and_in_sections(graph.type(id)));
    for (const PlacementSignature& signature : offered_signatures(graph, node, ranks, known)) {
      ++tried;
      AxisPlan plan = whole;
      plan.nodes[n] = signature;
      std::vector<Graph> graphs;
      for (int rank = 0; rank < ranks; ++rank) {
        graphs.push_back(apply_plan(graph, plan, {"tensor", ranks, rank}));
        verify(graphs.back());
      }
      const auto count = static_cast<std::size_t>(ranks);
      const std::vector<ref::StepResult> found =
          ref::evaluate_ranks(mesh, graphs, std::vector(count, bindings),
                              std::vector(count, std::vector<std::vector<ref::Bindings>>{{{}}}));
      for (const auto& [name, array] : expected.outputs) {
        for (const ref::StepResult& of_rank : found) {
          const std::string text = difference(array, of_rank.outputs.at(name));
          if (text.empty()) continue;
          return fmt::format("{} of {} with inputs {}: {}", name, node.op,
                             to_string(signature.inputs.front()), text);
        }
      }
    }
  }
  return "";
}

void expect_right(const OpCase& given) {
  int tried = 0;
  for (const int ranks : {2, 4}) EXPECT_EQ(check(given, ranks, tried), "") << ranks << " ranks";
  EXPECT_GT(tried, 0);
}

TensorType f32(Shape shape) { return {DType::kF32, std::move(shape)}; }
TensorType i32(Shape shape) { return {DType::kI32, std::move(shape)}; }

// 0, step, 2 step, ... modulo `modulus`, and what is to be otherwise.
ref::Array counting(const Shape& shape, int step, int modulus,
                    const std::map<std::int64_t, double>& otherwise = {}) {
  ref::Array array(shape);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    array[i] = static_cast<double>(i * step % modulus);
  }
  for (const auto& [i, value] : otherwise) array[i] = value;
  return array;
}

TEST(Signatures, Attention) {
  for (const bool causal : {false, true}) {
    expect_right({.inputs = {f32({2, 8, 16, 2})}, .build = [=](GraphBuilder& b, const Inputs& x) {
                    return ops::packed_attention(b, x[0], 4, {.causal = causal}).o;
                  }});
    // More keys than queries.
    expect_right({.inputs = {f32({2, 8, 8, 2}), f32({2, 12, 4, 2}), f32({2, 12, 4, 2})},
                  .build = [=](GraphBuilder& b, const Inputs& x) {
                    return ops::attention(b, x[0], x[1], x[2], {.causal = causal}).o;
                  }});
  }
}

TEST(Signatures, RotaryEmbedding) {
  expect_right({.inputs = {f32({2, 8, 16, 4})}, .build = [](GraphBuilder& b, const Inputs& x) {
                  return ops::rotary_embedding(b, x[0], {.heads = 10});
                }});
}

TEST(Signatures, Gather) {
  const ref::Array ids = counting({4, 8}, 5, 8, {{7, 8}, {9, -1}});
  expect_right(
      {.inputs = {f32({8, 4}), i32({4, 8})},
       .build = [](GraphBuilder& b, const Inputs& x) { return ops::embedding(b, x[0], x[1]); },
       .fixed = {{"x1", ids}}});
  expect_right(
      {.inputs = {f32({4, 8, 4}), i32({8})},
       .build = [](GraphBuilder& b, const Inputs& x) { return ops::gather(b, x[0], x[1], 1); },
       .fixed = {{"x1", counting({8}, 3, 8, {{2, -2}, {5, -9}})}}});
}

TEST(Signatures, LabelledRows) {
  expect_right({.inputs = {i32({4, 6})},
                .build =
                    [](GraphBuilder& b, const Inputs& x) {
                      ops::labelled_rows(b, x[0], 3);
                      return kNoValue;
                    },
                .fixed = {{"x0", counting({4, 6}, 5, 7, {{1, -1}, {2, -1}, {3, -1}, {4, -1}})}}});
}

TEST(Signatures, Dropout) {
  expect_right({.inputs = {f32({8, 128, 3}), {DType::kI64, {2}}},
                .build =
                    [](GraphBuilder& b, const Inputs& x) {
                      return ops::dropout(b, x[0], x[1], {.rate = 0.4, .seed = 3, .stream = 1});
                    },
                .fixed = {{"x1", ref::Array({2}, {7, 40})}}});
}

TEST(Signatures, Softmax) {
  expect_right({.inputs = {f32({4, 8, 4})},
                .build = [](GraphBuilder& b, const Inputs& x) { return ops::softmax(b, x[0]); }});
}

// Few different logits, so that many of them are equal; labels outside the classes, and ignored.
TEST(Signatures, CrossEntropy) {
  const std::optional<std::int32_t> ignored = 2;
  for (const std::map<std::int64_t, double>& labels :
       {std::map<std::int64_t, double>{}, {{3, -1}}, {{5, 8}}}) {
    expect_right({.inputs = {f32({8, 4, 8}), i32({8, 4}), f32({})},
                  .build =
                      [=](GraphBuilder& b, const Inputs& x) {
                        ops::count_correct(b, x[0], x[1], ignored);
                        return ops::softmax_cross_entropy(b, x[0], x[1], x[2], 0.1, ignored);
                      },
                  .fixed = {{"x0", counting({8, 4, 8}, 7, 3, {{40, std::nan("")}, {77, 1e30}})},
                            {"x1", counting({8, 4}, 3, 8, labels)}}});
    for (const bool has_bias : {false, true}) {
      expect_right({.inputs = {f32({8, 4}), f32({8, 4}), i32({2, 4}), f32({}), f32({8})},
                    .build =
                        [=](GraphBuilder& b, const Inputs& x) {
                          return ops::linear_cross_entropy(
                                     b, {.x = x[0], .w = x[1], .bias = has_bias ? x[4] : kNoValue},
                                     x[2], x[3], 0.1, ignored)
                              .loss;
                        },
                    .fixed = {{"x2", counting({2, 4}, 3, 8, labels)}}});
    }
  }
}

TEST(Signatures, RowNorms) {
  expect_right({.inputs = {f32({4, 8, 6}), f32({6}), f32({6})},
                .build = [](GraphBuilder& b, const Inputs& x) {
                  const ValueId y = ops::layer_norm(b, x[0], x[1], x[2], 1e-5);
                  return ops::rms_norm(b, y, x[1], 1e-5);
                }});
}

TEST(Signatures, GroupNorm) {
  expect_right({.inputs = {f32({4, 8, 2, 2}), f32({8}), f32({8})},
                .build = [](GraphBuilder& b, const Inputs& x) {
                  return ops::group_norm(b, x[0], 4, x[1], x[2], 1e-5);
                }});
}

TEST(Signatures, BatchNorm) {
  for (const bool relu : {false, true}) {
    for (const bool adds : {false, relu}) {
      const Shape shape = {4, 8, 4, 8};
      expect_right(
          {.inputs = {f32(shape), f32({8}), f32({8}), f32(shape)},
           .build = [=](GraphBuilder& b, const Inputs& x) {
             return ops::batch_norm(b, x[0], x[1], x[2], 1e-5, relu, adds ? x[3] : kNoValue).y;
           }});
    }
  }
  expect_right(
      {.inputs = {f32({4, 8}), f32({8}), f32({8})}, .build = [](GraphBuilder& b, const Inputs& x) {
         return ops::batch_norm(b, x[0], x[1], x[2], 1e-5).y;
       }});
}

TEST(Signatures, BatchNormOfGivenStatistics) {
  const ref::Array variance = counting({8}, 1, 8, {{0, 0.5}});
  expect_right({.inputs = {f32({4, 8, 4, 4}), f32({8}), f32({8}), f32({8}), f32({8})},
                .build =
                    [](GraphBuilder& b, const Inputs& x) {
                      ops::batch_norm_inference(b, x[0], x[1], x[2], x[3], x[4], 1e-5);
                      const Attributes epsilon = {{"epsilon", 1e-5}};
                      b.node("batch_norm_over_leaves_sums", {x[0], x[0], x[3], x[4]}, epsilon);
                      b.node("batch_norm_over_leaves_backward",
                             {x[0], x[0], x[1], x[3], x[4], x[2], x[1]}, epsilon);
                      b.node("channel_sum", {x[0]});
                      b.node("channel_sum", {x[0], x[3]});
                      return kNoValue;
                    },
                .fixed = {{"x4", variance}}});
}

TEST(Signatures, Maximum) {
  expect_right({.inputs = {f32({4, 8, 4})},
                .build =
                    [](GraphBuilder& b, const Inputs& x) {
                      ops::reduce_max(b, x[0], {1});
                      return ops::reduce_max(b, x[0], {0, 2}, true);
                    },
                .fixed = {{"x0", counting({4, 8, 4}, 7, 23)}}});
}

}  // namespace
}  // namespace concord::parallel

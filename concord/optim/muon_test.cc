// Muon's graphs, evaluated by the reference, against loops written here from its formulas.
#include "concord/optim/muon.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "concord/base/error.h"
#include "concord/kernels/ref/reference.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/convolution.h"
#include "concord/ops/gather.h"
#include "concord/ops/matmul.h"
#include "concord/ops/reduction.h"
#include "concord/ops/shape_ops.h"
#include "concord/ops/step.h"
#include "concord/optim/optimizer.h"

namespace concord {
namespace {

// Rows of any numbers that are neither small nor alike.
ref::Array numbers(const Shape& shape, double seed) {
  ref::Array result(shape);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    result[i] = std::sin(seed + 2.3 * static_cast<double>(i * i));
  }
  return result;
}

struct Matrix {
  std::int64_t rows, columns;
  std::vector<double> data;
  double& at(std::int64_t r, std::int64_t c) {
    return data[static_cast<std::size_t>(r * columns + c)];
  }
  double at(std::int64_t r, std::int64_t c) const {
    return data[static_cast<std::size_t>(r * columns + c)];
  }
};

Matrix transposed(const Matrix& x) {
  Matrix y{x.columns, x.rows, x.data};
  for (std::int64_t r = 0; r < x.rows; ++r) {
    for (std::int64_t c = 0; c < x.columns; ++c) y.at(c, r) = x.at(r, c);
  }
  return y;
}

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix y{a.rows, b.columns,
           std::vector<double>(static_cast<std::size_t>(a.rows * b.columns), 0.0)};
  for (std::int64_t r = 0; r < a.rows; ++r) {
    for (std::int64_t c = 0; c < b.columns; ++c) {
      for (std::int64_t k = 0; k < a.columns; ++k) y.at(r, c) += a.at(r, k) * b.at(k, c);
    }
  }
  return y;
}

// Always with A = X X^T, whatever the shape.
Matrix orthogonalized(Matrix x) {
  double square = 0;
  for (const double v : x.data) square += v * v;
  for (double& v : x.data) v /= std::sqrt(square) + 1e-7;
  for (int i = 0; i < 5; ++i) {
    const Matrix a = product(x, transposed(x));
    const Matrix once = product(a, x), twice = product(a, once);
    for (std::size_t k = 0; k < x.data.size(); ++k) {
      x.data[k] = 3.4445 * x.data[k] - 4.7750 * once.data[k] + 2.0315 * twice.data[k];
    }
  }
  return x;
}

ref::Array orthogonalize_by_graph(const ref::Array& x) {
  Graph graph;
  GraphBuilder b(graph);
  b.output("y", orthogonalize(b, b.input("x", {DType::kF32, x.shape}, Input::Kind::kStep)));
  return ref::evaluate_step(graph, {{"x", x}}, {{{}}}).outputs.at("y");
}

TEST(Muon, OrthogonalizesWideTallAndSquareMatrices) {
  for (const Shape& shape : {Shape{2, 5}, Shape{5, 2}, Shape{3, 3}, Shape{1, 4}}) {
    const ref::Array x = numbers(shape, 1);
    const ref::Array y = orthogonalize_by_graph(x);
    const Matrix expected = orthogonalized({shape[0], shape[1], x.data});
    for (std::size_t i = 0; i < y.data.size(); ++i) {
      EXPECT_NEAR(y.data[i], expected.data[i], 1e-6) << to_string(shape);
    }
  }
}

TEST(Muon, BringsSingularValuesNearOneWhateverTheScale) {
  for (const double scale : {1e-3, 1.0, 1e6}) {
    const ref::Array x({2, 3}, {3 * scale, 0, 0, 0, -0.1 * scale, 0});
    const ref::Array y = orthogonalize_by_graph(x);
    EXPECT_NEAR(y[0], 1, 0.35);
    EXPECT_NEAR(y[4], -1, 0.35);
    for (const int i : {1, 2, 3, 5}) EXPECT_EQ(y[i], 0);
  }
}

TEST(Muon, ZerosStayZeros) {
  for (const double v : orthogonalize_by_graph(ref::Array(Shape{2, 3})).data) EXPECT_EQ(v, 0);
}

// Filters, a matrix, a bias and a classifier.
struct Network {
  Network() : b(graph) {
    const ValueId x = b.input("x", {DType::kF32, {1, 2, 3, 3}}, Input::Kind::kStep);
    filters = parameter("filters", {3, 2, 2, 2});
    matrix = parameter("matrix", {12, 5});
    bias = b.state("bias", {DType::kF32, {5}}, State::Role::kParameter, {}, /*decay=*/false);
    classifier = parameter("classifier", {5, 2});
    ValueId y = ops::reshape(b, ops::conv2d(b, x, filters), {1, 12});
    y = ops::matmul(b, ops::matmul(b, y, matrix, {}, bias), classifier);
    logits = y;
  }
  ValueId parameter(const char* name, const Shape& shape) {
    return b.state(name, {DType::kF32, shape}, State::Role::kParameter, {});
  }
  void add_loss() { b.output("loss", ops::leaf_sum(b, ops::reduce_sum(b, logits, {0, 1}))); }

  Graph graph;
  GraphBuilder b;
  ValueId filters, matrix, bias, classifier, logits;
};

TEST(Muon, HiddenMatricesAreNeitherBiasesNorTheClassifier) {
  Network network;
  EXPECT_THROW(hidden_matrices(network.graph), Error);
  network.add_loss();
  EXPECT_EQ(hidden_matrices(network.graph), (std::set{network.filters, network.matrix}));
}

TEST(Muon, EmbeddingsAreNoHiddenMatricesNorIsWhatOnlyTheBackwardPassReads) {
  Graph graph;
  GraphBuilder b(graph);
  const auto matrix = [&](const char* name) {
    return b.state(name, {DType::kF32, {4, 4}}, State::Role::kParameter, {});
  };
  const ValueId tokens = b.input("tokens", {DType::kI32, {3}}, Input::Kind::kStep);
  const ValueId embeddings = matrix("embeddings"), positions = matrix("positions");
  const ValueId hidden = matrix("hidden"), unused = matrix("unused");
  ValueId y = ops::embedding(b, embeddings, tokens);
  y = ops::add(b, y, ops::slice(b, positions, 0, 0, 3));
  y = ops::matmul(b, y, hidden);
  y = ops::matmul(b, y, embeddings);  // tied
  b.output("loss", ops::leaf_sum(b, ops::reduce_sum(b, y, {0, 1})));
  ops::matmul(b, unused, hidden);
  EXPECT_EQ(hidden_matrices(graph), std::set{hidden});
}

// One parameter's steps by loops.
struct Loop {
  double rate, factor, decay, momentum;
  bool nesterov;
  Matrix p;
  std::vector<double> m = std::vector<double>(p.data.size(), 0.0);

  void step(const std::vector<double>& g) {
    Matrix direction = p;
    for (std::size_t i = 0; i < g.size(); ++i) {
      m[i] = momentum * m[i] + g[i];
      direction.data[i] = nesterov ? g[i] + momentum * m[i] : m[i];
    }
    const Matrix s = orthogonalized(direction);
    const double scale = 0.2 * std::sqrt(static_cast<double>(std::max(p.rows, p.columns)));
    for (std::size_t i = 0; i < g.size(); ++i) {
      p.data[i] += -rate * factor * decay * p.data[i] - rate * factor * scale * s.data[i];
    }
  }
};

// The network's parameters after three steps, by name.
ref::Bindings train(const OptimizerOptions& options) {
  Network network;
  network.add_loss();
  GraphBuilder& b = network.b;
  const ValueId rate = b.input("rate", {DType::kF32, {}}, Input::Kind::kStep);
  std::vector<ParameterGradient> parameters;
  for (const ValueId p : {network.filters, network.matrix, network.bias, network.classifier}) {
    const std::string name = "gradient." + network.graph.value(p).name;
    parameters.push_back({p, b.input(name, b.type(p), Input::Kind::kStep)});
  }
  apply_optimizer(b, options, parameters, rate);
  ref::Bindings bindings{{"rate", ref::Array({}, {0.1})}, {"x", numbers({1, 2, 3, 3}, 0)}};
  for (const State& state : network.graph.states) {
    const Value& value = network.graph.value(state.value);
    const bool is_parameter = state.role == State::Role::kParameter;
    bindings[value.name] =
        is_parameter ? numbers(value.type.shape, 5) : ref::Array(value.type.shape);
  }
  for (int step = 0; step < 3; ++step) {
    for (const auto& [p, gradient] : parameters) {
      bindings[network.graph.value(gradient).name] =
          numbers(network.graph.type(p).shape, 10 + step);
    }
    for (auto& [name, value] : ref::evaluate_step(network.graph, bindings, {{{}}}).next_states) {
      bindings[name] = value;
    }
  }
  return bindings;
}

void check_hidden(const OptimizerOptions& options, double factor) {
  const ref::Bindings after = train(options);
  for (const auto& [name, rows, columns] :
       {std::tuple{"filters", 3, 8}, std::tuple{"matrix", 12, 5}}) {
    const Shape flat{rows, columns};
    Loop loop{.rate = 0.1,
              .factor = factor,
              .decay = options.weight_decay,
              .momentum = options.momentum,
              .nesterov = options.nesterov,
              .p = {rows, columns, numbers(flat, 5).data}};
    for (int step = 0; step < 3; ++step) loop.step(numbers(flat, 10 + step).data);
    for (std::size_t i = 0; i < loop.p.data.size(); ++i) {
      EXPECT_NEAR(after.at(name).data[i], loop.p.data[i], 1e-6) << name;
    }
  }
}

TEST(Muon, HiddenMatricesFollowTheFormula) {
  check_hidden(usual_options("muon"), 1);
  check_hidden({.name = "muon", .momentum = 0.5, .weight_decay = 0.3}, 1);
  check_hidden({.name = "muon", .momentum = 0}, 1);
  check_hidden({.name = "muon",
                .momentum = 0.5,
                .adamw_rate_factor = 0.1,
                .rates = {{"filters", 0.5}, {"matrix", 0.5}}},
               0.5);
}

TEST(Muon, AllElseIsUpdatedByAdamwAtItsOwnRate) {
  OptimizerOptions muon = usual_options("muon");
  muon.weight_decay = 0.2;
  muon.adamw_rate_factor = 0.25;
  const ref::Bindings by_muon = train(muon);
  const ref::Bindings by_adamw = train(
      {.name = "adamw", .weight_decay = 0.2, .rates = {{"bias", 0.25}, {"classifier", 0.25}}});
  for (const char* name : {"bias", "classifier", "bias.adam_m", "classifier.adam_v"}) {
    EXPECT_EQ(by_muon.at(name).data, by_adamw.at(name).data) << name;
  }
  EXPECT_FALSE(by_muon.contains("matrix.adam_m"));
}

TEST(Muon, ClipsBeforeTheMomentum) {
  const OptimizerOptions plain{.name = "muon", .momentum = 0.5, .weight_decay = 0.1};
  OptimizerOptions clipped = plain;
  clipped.clip_norm = 1e6;
  EXPECT_EQ(train(clipped).at("matrix").data, train(plain).at("matrix").data);
  clipped.clip_norm = 0.1;
  const double ratio =
      train(clipped).at("matrix.momentum")[0] / train(plain).at("matrix.momentum")[0];
  EXPECT_LT(ratio, 0.1);
  EXPECT_GT(ratio, 0);
}

}  // namespace
}  // namespace concord

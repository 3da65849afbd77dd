// The optimizers' graphs, evaluated by the reference over several steps, against scalar loops
// written here from the papers' formulas.
#include "concord/optim/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "concord/base/error.h"
#include "concord/graph/verifier.h"
#include "concord/kernels/ref/reference.h"
#include "concord/ops/arithmetic.h"

namespace concord {
namespace {

constexpr double kLearningRate = 0.1;
constexpr int kSteps = 5;

// What one parameter starts from and the gradient it gets in each step.
struct Scalar {
  double parameter;
  double gradient_of(int step) const { return std::sin(3.0 * step + 5 * parameter_seed); }
  double parameter_seed;
};

// "layer.weight" decays, "layer.bias" does not.
const std::vector<Scalar> kScalars = {{1.5, 0.3}, {-0.7, 0.9}};

// The parameters after each step, or the states of that suffix: the graph's.
std::vector<std::vector<double>> evaluate_graph(const OptimizerOptions& options,
                                                const std::string& suffix = "") {
  Graph graph;
  GraphBuilder b(graph);
  const TensorType scalar{DType::kF32, {}};
  const ValueId rate = b.input("rate", scalar, Input::Kind::kStep);
  const ValueId g0 = b.input("g0", scalar, Input::Kind::kStep);
  const ValueId g1 = b.input("g1", scalar, Input::Kind::kStep);
  const ValueId weight = b.state("layer.weight", scalar, State::Role::kParameter, {});
  const ValueId bias = b.state("layer.bias", scalar, State::Role::kParameter, {}, false);
  apply_optimizer(b, options, {{weight, g0}, {bias, g1}}, rate);
  verify(graph);

  ref::Bindings bindings;
  for (const State& state : graph.states)
    bindings[graph.value(state.value).name] = ref::Array(Shape{});
  bindings["layer.weight"][0] = kScalars[0].parameter;
  bindings["layer.bias"][0] = kScalars[1].parameter;
  bindings["rate"] = ref::Array({}, {kLearningRate});
  std::vector<std::vector<double>> after;
  for (int step = 0; step < kSteps; ++step) {
    bindings["g0"] = ref::Array({}, {kScalars[0].gradient_of(step)});
    bindings["g1"] = ref::Array({}, {kScalars[1].gradient_of(step)});
    for (auto& [name, value] : ref::evaluate_step(graph, bindings, {{{}}}).next_states) {
      bindings[name] = value;
    }
    after.push_back({bindings["layer.weight" + suffix][0], bindings["layer.bias" + suffix][0]});
  }
  return after;
}

// The same by a loop; `update(p, g, decay, memory, t)` returns the new parameter.
template <typename Update>
std::vector<std::vector<double>> loop(const OptimizerOptions& options, Update update) {
  struct Memory {
    double m = 0, v = 0;
  };
  std::vector<double> p = {kScalars[0].parameter, kScalars[1].parameter};
  std::vector<Memory> memory(2);
  std::vector<std::vector<double>> after;
  for (int step = 0; step < kSteps; ++step) {
    std::vector<double> g = {kScalars[0].gradient_of(step), kScalars[1].gradient_of(step)};
    const double norm = std::sqrt(g[0] * g[0] + g[1] * g[1]);
    if (options.clip_norm > 0 && norm > options.clip_norm) {
      for (double& x : g) x *= options.clip_norm / (norm + 1e-6);
    }
    for (std::size_t i = 0; i < 2; ++i) {
      const bool decays = i == 0 || options.decay_norm_and_bias;
      p[i] = update(p[i], g[i], decays ? options.weight_decay : 0.0, memory[i], step + 1);
    }
    after.push_back(p);
  }
  return after;
}

void expect_near(const std::vector<std::vector<double>>& a,
                 const std::vector<std::vector<double>>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t step = 0; step < a.size(); ++step) {
    for (std::size_t i = 0; i < a[step].size(); ++i)
      EXPECT_NEAR(a[step][i], b[step][i], 1e-12) << step;
  }
}

void check_sgd(const OptimizerOptions& o) {
  expect_near(evaluate_graph(o), loop(o, [&](double p, double g, double decay, auto& memory, int) {
                if (o.decoupled) p *= 1 - kLearningRate * decay;
                if (!o.decoupled) g += decay * p;
                memory.m = o.momentum * memory.m + g;
                const double direction = o.nesterov ? g + o.momentum * memory.m : memory.m;
                return p - kLearningRate * direction;
              }));
}

void check_adam(const OptimizerOptions& o) {
  const bool decoupled = o.decoupled || o.name == "adamw";
  expect_near(evaluate_graph(o),
              loop(o, [&](double p, double g, double decay, auto& memory, int t) {
                if (decoupled) p *= 1 - kLearningRate * decay;
                if (!decoupled) g += decay * p;
                memory.m += (1 - o.beta1) * (g - memory.m);
                memory.v += (1 - o.beta2) * (g * g - memory.v);
                const double m_hat = memory.m / (1 - std::pow(o.beta1, t));
                const double v_hat = memory.v / (1 - std::pow(o.beta2, t));
                return p - kLearningRate * m_hat / (std::sqrt(v_hat) + o.epsilon);
              }));
}

// Chen et al. 2023, program 1.
void check_lion(const OptimizerOptions& o) {
  expect_near(evaluate_graph(o), loop(o, [&](double p, double g, double decay, auto& memory, int) {
                const double sum = o.beta1 * memory.m + (1 - o.beta1) * g;
                memory.m += (1 - o.beta2) * (g - memory.m);
                return p * (1 - kLearningRate * decay) - std::copysign(kLearningRate, sum);
              }));
}

// PyTorch's, as train/golden_test.cc also shows.
void check_rmsprop(const OptimizerOptions& o) {
  expect_near(evaluate_graph(o), loop(o, [&](double p, double g, double decay, auto& memory, int) {
                if (o.decoupled) p *= 1 - kLearningRate * decay;
                if (!o.decoupled) g += decay * p;
                memory.v += (1 - o.alpha) * (g * g - memory.v);
                memory.m = o.momentum * memory.m + g / (std::sqrt(memory.v) + o.epsilon);
                return p - kLearningRate * memory.m;
              }));
}

// Duchi, Hazan, Singer 2011, figure 1, diagonal; also PyTorch's.
void check_adagrad(const OptimizerOptions& o) {
  expect_near(evaluate_graph(o), loop(o, [&](double p, double g, double decay, auto& memory, int) {
                if (o.decoupled) p *= 1 - kLearningRate * decay;
                if (!o.decoupled) g += decay * p;
                memory.v += g * g;
                return p - kLearningRate * g / (std::sqrt(memory.v) + o.epsilon);
              }));
}

// You, Gitman, Ginsburg 2017, algorithm 1, with the learning rate outside of the momentum. Of a
// scalar, the norm is the absolute value. Only the first of the two scalars decays.
void check_lars(const OptimizerOptions& o) {
  expect_near(evaluate_graph(o),
              loop(o, [&, i = 0](double p, double g, double decay, auto& memory, int) mutable {
                const bool is_bias = i++ % 2 == 1 && !o.decay_norm_and_bias;
                const double ratio = is_bias ? 1
                                             : o.trust_coefficient * std::abs(p) /
                                                   (std::abs(g) + decay * std::abs(p));
                memory.m = o.momentum * memory.m + ratio * (g + decay * p);
                return p - kLearningRate * memory.m;
              }));
}

// You et al. 2020, algorithm 2, phi being the identity.
void check_lamb(const OptimizerOptions& o) {
  expect_near(evaluate_graph(o),
              loop(o, [&, i = 0](double p, double g, double decay, auto& memory, int t) mutable {
                memory.m += (1 - o.beta1) * (g - memory.m);
                memory.v += (1 - o.beta2) * (g * g - memory.v);
                const double m_hat = memory.m / (1 - std::pow(o.beta1, t));
                const double v_hat = memory.v / (1 - std::pow(o.beta2, t));
                const double step = m_hat / (std::sqrt(v_hat) + o.epsilon) + decay * p;
                const bool is_bias = i++ % 2 == 1 && !o.decay_norm_and_bias;
                const double ratio = is_bias ? 1 : std::abs(p) / std::abs(step);
                return p - kLearningRate * ratio * step;
              }));
}

TEST(Optimizer, PortionsOfTheParametersComputeTheSame) {
  for (const char* name : {"sgd", "adamw", "lion", "rmsprop", "adagrad", "lars", "lamb"}) {
    OptimizerOptions options{.name = name, .weight_decay = 0.1, .decay_norm_and_bias = true};
    const auto together = evaluate_graph(options);
    options.numbers_at_once = 1;
    EXPECT_EQ(evaluate_graph(options), together) << name;
  }
}

TEST(Optimizer, SgdFollowsItsFormula) {
  check_sgd({.momentum = 0});
  check_sgd({.momentum = 0.9});
  check_sgd({.momentum = 0.9, .nesterov = true});
  check_sgd({.momentum = 0, .weight_decay = 0.2});
  check_sgd({.momentum = 0.8, .nesterov = true, .weight_decay = 0.2, .clip_norm = 0.5});
  check_sgd({.momentum = 0.8, .weight_decay = 0.2, .decoupled = true});
}

TEST(Optimizer, AdamAndAdamwFollowTheirFormulas) {
  check_adam({.name = "adam"});
  check_adam({.name = "adam", .weight_decay = 0.2, .beta1 = 0.7, .beta2 = 0.9, .epsilon = 1e-3});
  check_adam({.name = "adamw", .weight_decay = 0.2});
  check_adam({.name = "adamw", .weight_decay = 0.2, .decay_norm_and_bias = true, .clip_norm = 0.3});
}

TEST(Optimizer, LionFollowsItsFormula) {
  check_lion(usual_options("lion"));
  check_lion({.name = "lion", .weight_decay = 0.2, .beta1 = 0.5, .beta2 = 0.7, .clip_norm = 0.3});
}

TEST(Optimizer, RmspropFollowsItsFormula) {
  check_rmsprop(usual_options("rmsprop"));
  check_rmsprop({.name = "rmsprop", .momentum = 0.9, .weight_decay = 0.2, .alpha = 0.8});
  check_rmsprop({.name = "rmsprop", .momentum = 0, .weight_decay = 0.2, .decoupled = true});
}

TEST(Optimizer, AdagradFollowsItsFormula) {
  check_adagrad(usual_options("adagrad"));
  check_adagrad({.name = "adagrad", .weight_decay = 0.2, .epsilon = 1e-3, .clip_norm = 0.3});
  check_adagrad({.name = "adagrad", .weight_decay = 0.2, .decoupled = true});
}

TEST(Optimizer, LarsFollowsItsFormula) {
  check_lars({.name = "lars"});
  check_lars({.name = "lars", .weight_decay = 0.2, .trust_coefficient = 0.5, .clip_norm = 0.3});
  check_lars({.name = "lars", .momentum = 0, .weight_decay = 0.2, .decay_norm_and_bias = true});
}

TEST(Optimizer, LambFollowsItsFormula) {
  check_lamb(usual_options("lamb"));
  check_lamb(
      {.name = "lamb", .weight_decay = 0.2, .beta1 = 0.7, .epsilon = 1e-3, .clip_norm = 0.3});
  check_lamb({.name = "lamb", .weight_decay = 0.2, .decay_norm_and_bias = true});
}

TEST(Optimizer, TrustRatiosAreOfEuclideanNorms) {
  const auto step = [](const OptimizerOptions& options) {
    Graph graph;
    GraphBuilder b(graph);
    const TensorType vector{DType::kF32, {2}};
    const ValueId rate = b.input("rate", {DType::kF32, {}}, Input::Kind::kStep);
    const ValueId g = b.input("g", vector, Input::Kind::kStep);
    apply_optimizer(b, options, {{b.state("w", vector, State::Role::kParameter, {}), g}}, rate);
    ref::Bindings bindings;
    for (const State& state : graph.states) {
      const Value& value = graph.value(state.value);
      bindings[value.name] = ref::Array(value.type.shape);
    }
    bindings["w"] = ref::Array({2}, {3, 4});
    bindings["g"] = ref::Array({2}, {0.5, -1.2});
    bindings["rate"] = ref::Array({}, {kLearningRate});
    const ref::Array next = ref::evaluate_step(graph, bindings, {{{}}}).next_states.at("w");
    return std::vector<double>{next[0] - 3, next[1] - 4};
  };
  const std::vector<double> lars = step({.name = "lars", .weight_decay = 0.1});
  const double ratio = 0.001 * 5 / (1.3 + 0.1 * 5);
  EXPECT_NEAR(lars[0], -kLearningRate * ratio * (0.5 + 0.3), 1e-12);
  EXPECT_NEAR(lars[1], -kLearningRate * ratio * (-1.2 + 0.4), 1e-12);
  // Adam's first direction is the gradient's sign.
  const std::vector<double> lamb = step({.name = "lamb", .weight_decay = 0.1, .epsilon = 1e-15});
  const double norm = std::hypot(1 + 0.3, -1 + 0.4);
  EXPECT_NEAR(lamb[0], -kLearningRate * 5 / norm * (1 + 0.3), 1e-12);
  EXPECT_NEAR(lamb[1], -kLearningRate * 5 / norm * (-1 + 0.4), 1e-12);
}

TEST(Optimizer, LayersLearnAtTheirRates) {
  const auto steps = [](const OptimizerOptions& options) {
    const std::vector<double> p = evaluate_graph(options)[0];
    return std::vector<double>{p[0] - kScalars[0].parameter, p[1] - kScalars[1].parameter};
  };
  for (const char* name : {"sgd", "adamw", "lion", "rmsprop", "adagrad", "lamb"}) {
    const OptimizerOptions plain{.name = name, .weight_decay = 0.2, .decoupled = true};
    OptimizerOptions halved = plain, one = plain;
    halved.rates = {{"layer", 0.5}};
    one.rates = {{"layer.bias", 0}, {"layer", 0.5}};  // the longest prefix counts
    for (std::size_t i : {0, 1}) EXPECT_NEAR(steps(halved)[i], steps(plain)[i] / 2, 1e-12) << name;
    EXPECT_NEAR(steps(one)[0], steps(plain)[0] / 2, 1e-12) << name;
    EXPECT_EQ(steps(one)[1], 0) << name;
  }
}

TEST(Optimizer, RateOfNoParameterNamesItAndTheNearest) {
  const auto error_of = [](const char* prefix) -> std::string {
    try {
      evaluate_graph({.rates = {{prefix, 0.5}}});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(error_of("layer.bias"), "");
  EXPECT_EQ(error_of("lay"),
            "optimizer.rates: no parameter's name begins with \"lay\"; did you mean \"layer\"?");
  EXPECT_NE(error_of("layer.").find("did you mean"), std::string::npos);
  EXPECT_NE(error_of("layer.weigth").find("did you mean \"layer.weight\"?"), std::string::npos);
}

TEST(Optimizer, RateFactorsAreParsed) {
  EXPECT_EQ(parse_rate_factor("h.0=0.5")->prefix, "h.0");
  EXPECT_EQ(parse_rate_factor("h.0=0.5")->factor, 0.5);
  EXPECT_EQ(parse_rate_factor("x=0")->factor, 0);
  for (const char* text : {"", "=", "h.0", "=1", "x=", "x=1,", "x= 1", "x=-1", "x=inf", "x=nan"}) {
    EXPECT_FALSE(parse_rate_factor(text)) << text;
  }
}

TEST(Optimizer, DecayReachesBiasesOnlyWhereAsked) {
  const OptimizerOptions plain{.momentum = 0}, decayed{.momentum = 0, .weight_decay = 0.5};
  const OptimizerOptions all{.momentum = 0, .weight_decay = 0.5, .decay_norm_and_bias = true};
  EXPECT_NE(evaluate_graph(plain)[0][0], evaluate_graph(decayed)[0][0]);
  EXPECT_EQ(evaluate_graph(plain)[0][1], evaluate_graph(decayed)[0][1]);
  EXPECT_NE(evaluate_graph(plain)[0][1], evaluate_graph(all)[0][1]);
  check_sgd(all);
}

TEST(Optimizer, ClippingLeavesSmallGradientsAlone) {
  EXPECT_EQ(evaluate_graph({.clip_norm = 100}), evaluate_graph({}));
  EXPECT_NE(evaluate_graph({.clip_norm = 0.1}), evaluate_graph({}));
}

TEST(Optimizer, AveragesFollowTheParametersAfterEachStep) {
  OptimizerOptions options{.name = "adam", .weight_decay = 0.2};
  const std::vector<std::vector<double>> parameters = evaluate_graph(options);
  options.ema_decay = 0.75;
  expect_near(evaluate_graph(options), parameters);
  std::vector<std::vector<double>> averages;
  std::vector<double> average = {0, 0};
  for (const std::vector<double>& after : parameters) {
    for (std::size_t i = 0; i < 2; ++i) average[i] = 0.75 * average[i] + 0.25 * after[i];
    averages.push_back(average);
  }
  expect_near(evaluate_graph(options, ".ema"), averages);
}

TEST(Optimizer, NamesItsStatesAfterTheParameters) {
  const auto names = [](const OptimizerOptions& options) {
    Graph graph;
    GraphBuilder b(graph);
    const auto scope = b.scope("model");
    const TensorType type{DType::kF32, {3}};
    const ValueId p = b.state("w", type, State::Role::kParameter, {});
    const ValueId g = b.input("g", type, Input::Kind::kStep);
    apply_optimizer(b, options, {{p, g}}, b.input("rate", {DType::kF32, {}}, Input::Kind::kStep));
    EXPECT_EQ(b.scope_name(), "model");
    std::vector<std::string> result;
    for (const State& state : graph.states) {
      EXPECT_NE(state.next, kNoValue);
      if (state.role == State::Role::kOptimizer) result.push_back(graph.value(state.value).name);
    }
    return result;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(names({.momentum = 0}), Names());
  EXPECT_EQ(names({.momentum = 0.9}), (Names{"model.w.momentum"}));
  EXPECT_EQ(names({.name = "adam"}), (Names{"optimizer.step", "model.w.adam_m", "model.w.adam_v"}));
}

TEST(Optimizer, RefusesWhatHasNoMeaning) {
  Graph graph;
  GraphBuilder b(graph);
  const TensorType scalar{DType::kF32, {}};
  const ValueId p = b.state("w", scalar, State::Role::kParameter, {});
  const ValueId g = b.input("g", scalar, Input::Kind::kStep);
  EXPECT_THROW(apply_optimizer(b, {.name = "adamax"}, {{p, g}}, g), Error);
  EXPECT_THROW(apply_optimizer(b, {.momentum = 1}, {{p, g}}, g), Error);
  EXPECT_THROW(apply_optimizer(b, {.momentum = 0, .nesterov = true}, {{p, g}}, g), Error);
  EXPECT_THROW(apply_optimizer(b, {.clip_norm = -1}, {{p, g}}, g), Error);
  EXPECT_THROW(apply_optimizer(b, {}, {{p, kNoValue}}, g), Error);
  EXPECT_THROW(apply_optimizer(b, {.rates = {{"w", -1}}}, {{p, g}}, g), Error);
  EXPECT_THROW(apply_optimizer(b, {.rates = {{"w", 1}, {"w", 2}}}, {{p, g}}, g), Error);
  EXPECT_THROW(apply_optimizer(b, {.name = "muon"}, {{p, g}}, g), Error);
}

}  // namespace
}  // namespace concord

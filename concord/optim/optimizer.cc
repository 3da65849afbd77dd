#include "concord/optim/optimizer.h"

#include "concord/base/error.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/optimizer.h"
#include "concord/ops/step.h"

namespace concord {
namespace {

void expect_range(const char* option, double value, bool fits, const char* expected) {
  if (!fits) fail("optimizer: {} = {}: expected {}", option, value, expected);
}

void check(const OptimizerOptions& o) {
  if (o.name != "sgd" && o.name != "adam" && o.name != "adamw") {
    fail("optimizer: there is no \"{}\"; choose sgd, adam or adamw", o.name);
  }
  expect_range("momentum", o.momentum, o.momentum >= 0 && o.momentum < 1, "a number in [0, 1)");
  expect_range("beta1", o.beta1, o.beta1 >= 0 && o.beta1 < 1, "a number in [0, 1)");
  expect_range("beta2", o.beta2, o.beta2 >= 0 && o.beta2 < 1, "a number in [0, 1)");
  expect_range("epsilon", o.epsilon, o.epsilon > 0, "a positive number");
  expect_range("weight_decay", o.weight_decay, o.weight_decay >= 0, "0 or a positive number");
  expect_range("clip_norm", o.clip_norm, o.clip_norm >= 0, "0 or a positive number");
  if (o.name == "sgd" && o.nesterov && o.momentum == 0) {
    fail("optimizer: nesterov needs a positive momentum");
  }
}

// Parameters that are updated alike.
struct Group {
  double weight_decay = 0;
  std::vector<ValueId> parameters;
  std::vector<ValueId> gradients;
};

const State& state_of(const Graph& graph, ValueId parameter) {
  for (const State& state : graph.states) {
    if (state.value == parameter) return state;
  }
  CONCORD_CHECK(false, "value {} is not a state", parameter);
  std::abort();
}

class Application {
 public:
  Application(GraphBuilder& builder, const OptimizerOptions& options, ValueId learning_rate)
      : builder_(builder), options_(options), learning_rate_(learning_rate) {}

  void run(const std::vector<ParameterGradient>& parameters) {
    if (parameters.empty()) return;
    const std::string scope = builder_.scope_name();
    builder_.set_scope_name("optimizer");
    gradient_scale_ = gradient_scale(parameters);
    const bool is_sgd = options_.name == "sgd";
    if (!is_sgd) step_count_ = step_count();
    for (const Group& group : groups(parameters)) {
      if (group.parameters.empty()) continue;
      is_sgd ? update_sgd(group) : update_adam(group);
    }
    builder_.set_scope_name(scope);
  }

 private:
  std::vector<Group> groups(const std::vector<ParameterGradient>& parameters) const {
    std::vector<Group> groups = {{.weight_decay = options_.weight_decay}, {.weight_decay = 0}};
    for (const ParameterGradient& p : parameters) {
      const bool decays =
          options_.decay_norm_and_bias || state_of(builder_.graph(), p.parameter).decay;
      Group& group = groups[decays ? 0 : 1];
      group.parameters.push_back(p.parameter);
      group.gradients.push_back(p.gradient);
    }
    return groups;
  }

  ValueId gradient_scale(const std::vector<ParameterGradient>& parameters) {
    if (options_.clip_norm == 0) return ops::constant(builder_, {DType::kF32, {}}, 1.0);
    std::vector<ValueId> gradients;
    for (const ParameterGradient& p : parameters) gradients.push_back(p.gradient);
    return ops::clip_factor(builder_, ops::sum_of_squares(builder_, gradients), options_.clip_norm);
  }

  // The number of this step, counted from 1.
  ValueId step_count() {
    const TensorType scalar{DType::kF32, {}};
    const ValueId taken = builder_.state("step", scalar, State::Role::kOptimizer, {});
    const ValueId count = ops::add(builder_, taken, ops::constant(builder_, scalar, 1.0));
    builder_.set_next(taken, count);
    return count;
  }

  // A state of zeros beside each parameter, named after it.
  std::vector<ValueId> states(const Group& group, std::string_view suffix) {
    std::vector<ValueId> result;
    builder_.set_scope_name("");  // parameters' names are complete
    for (const ValueId parameter : group.parameters) {
      const std::string name = fmt::format("{}.{}", builder_.graph().value(parameter).name, suffix);
      result.push_back(builder_.state(name, builder_.type(parameter), State::Role::kOptimizer, {}));
    }
    builder_.set_scope_name("optimizer");
    return result;
  }

  void set_next(const std::vector<ValueId>& states, const std::vector<ValueId>& next) {
    for (std::size_t i = 0; i < states.size(); ++i) builder_.set_next(states[i], next[i]);
  }

  void update_sgd(const Group& group) {
    const bool has_momentum = options_.momentum != 0;
    const std::vector<ValueId> momenta =
        has_momentum ? states(group, "momentum") : std::vector<ValueId>();
    const ops::SgdUpdate next = ops::sgd_update(builder_, learning_rate_, gradient_scale_,
                                                group.parameters, group.gradients, momenta,
                                                {.momentum = options_.momentum,
                                                 .nesterov = options_.nesterov,
                                                 .weight_decay = group.weight_decay,
                                                 .decoupled = options_.decoupled});
    set_next(group.parameters, next.parameters);
    set_next(momenta, next.momenta);
  }

  void update_adam(const Group& group) {
    const std::vector<ValueId> first = states(group, "adam_m");
    const std::vector<ValueId> second = states(group, "adam_v");
    const ops::AdamUpdate next =
        ops::adam_update(builder_, learning_rate_, gradient_scale_, step_count_, group.parameters,
                         group.gradients, first, second,
                         {.beta1 = options_.beta1,
                          .beta2 = options_.beta2,
                          .epsilon = options_.epsilon,
                          .weight_decay = group.weight_decay,
                          .decoupled = options_.decoupled || options_.name == "adamw"});
    set_next(group.parameters, next.parameters);
    set_next(first, next.first_moments);
    set_next(second, next.second_moments);
  }

  GraphBuilder& builder_;
  const OptimizerOptions& options_;
  ValueId learning_rate_;
  ValueId gradient_scale_ = kNoValue;
  ValueId step_count_ = kNoValue;
};

}  // namespace

void apply_optimizer(GraphBuilder& builder, const OptimizerOptions& options,
                     const std::vector<ParameterGradient>& parameters, ValueId learning_rate) {
  check(options);
  for (const ParameterGradient& p : parameters) {
    if (p.gradient != kNoValue) continue;
    fail("the loss does not depend on parameter \"{}\"; leave it out of the update",
         builder.graph().value(p.parameter).name);
  }
  Application(builder, options, learning_rate).run(parameters);
}

}  // namespace concord

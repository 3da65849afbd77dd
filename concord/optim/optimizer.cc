#include "concord/optim/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/optimizer.h"
#include "concord/ops/shape_ops.h"
#include "concord/ops/step.h"
#include "concord/optim/muon.h"

namespace concord {
namespace {

void expect_range(const char* option, double value, bool fits, const char* expected) {
  if (!fits) fail("optimizer: {} = {}: expected {}", option, value, expected);
}

void check(const OptimizerOptions& o) {
  const auto below_one = [](const char* option, double value) {
    expect_range(option, value, value >= 0 && value < 1, "a number in [0, 1)");
  };
  below_one("momentum", o.momentum);
  below_one("beta1", o.beta1);
  below_one("beta2", o.beta2);
  below_one("alpha", o.alpha);
  below_one("ema_decay", o.ema_decay);
  expect_range("trust_coefficient", o.trust_coefficient, o.trust_coefficient > 0,
               "a positive number");
  expect_range("adamw_rate_factor", o.adamw_rate_factor, o.adamw_rate_factor > 0,
               "a positive number");
  expect_range("epsilon", o.epsilon, o.epsilon > 0, "a positive number");
  expect_range("weight_decay", o.weight_decay, o.weight_decay >= 0, "0 or a positive number");
  expect_range("clip_norm", o.clip_norm, o.clip_norm >= 0, "0 or a positive number");
  if (o.name == "sgd" && o.nesterov && o.momentum == 0) {
    fail("optimizer: nesterov needs a positive momentum");
  }
  for (const RateFactor& rate : o.rates) {
    expect_range("a factor of rates", rate.factor, rate.factor >= 0, "0 or a positive number");
  }
}

// Whether the name is the prefix, or goes on behind it with a dot.
bool has_prefix(std::string_view name, std::string_view prefix) {
  return name.starts_with(prefix) && (name.size() == prefix.size() || name[prefix.size()] == '.');
}

double rate_factor(const std::vector<RateFactor>& rates, std::string_view name) {
  const RateFactor* longest = nullptr;
  for (const RateFactor& rate : rates) {
    if (!has_prefix(name, rate.prefix)) continue;
    if (longest == nullptr || rate.prefix.size() > longest->prefix.size()) longest = &rate;
  }
  return longest == nullptr ? 1 : longest->factor;
}

// Throws for a prefix that none of the names has, or that stands there twice.
void check_prefixes(const std::vector<RateFactor>& rates, const std::vector<std::string>& names) {
  for (const RateFactor& rate : rates) {
    if (std::ranges::count(rates, rate.prefix, &RateFactor::prefix) > 1) {
      fail("optimizer.rates: {} has more than one factor", shortened(quote(rate.prefix)));
    }
    if (std::ranges::any_of(names, [&](auto& name) { return has_prefix(name, rate.prefix); })) {
      continue;
    }
    std::vector<std::string_view> prefixes;  // of which one was meant
    for (const std::string_view name : names) {
      for (std::size_t end = name.find('.'); end != name.npos; end = name.find('.', end + 1)) {
        prefixes.push_back(name.substr(0, end));
      }
      prefixes.push_back(name);
    }
    fail("optimizer.rates: no parameter's name begins with {}; did you mean {}?",
         shortened(quote(rate.prefix)), quote(nearest(rate.prefix, prefixes)));
  }
}

// Parameters that are updated alike.
struct Group {
  bool is_hidden = false;  // muon: whether the parameters are hidden matrices
  bool decays = true;      // whether weight decay applies
  double weight_decay = 0;
  ValueId learning_rate = kNoValue;
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
    const auto update = updates().find(options_.name);
    if (update == updates().end()) {
      std::vector<std::string_view> names;
      for (const auto& [name, unused] : updates()) names.push_back(name);
      fail("optimizer: there is no \"{}\"; choose one of {}", options_.name,
           fmt::join(names, ", "));
    }
    if (parameters.empty()) return;
    const std::string scope = builder_.scope_name();
    builder_.set_scope_name("optimizer");
    if (options_.name == "muon") hidden_ = hidden_matrices(builder_.graph());
    gradient_scale_ = gradient_scale(parameters);
    for (const Group& group : groups(parameters)) (this->*update->second)(group);
    if (options_.ema_decay != 0) update_averages(parameters);
    builder_.set_scope_name(scope);
  }

 private:
  using Update = void (Application::*)(const Group&);
  static const std::map<std::string_view, Update>& updates() {
    static const std::map<std::string_view, Update> table = {
        {"sgd", &Application::update_sgd},         {"adam", &Application::update_adam},
        {"adamw", &Application::update_adam},      {"lion", &Application::update_lion},
        {"rmsprop", &Application::update_rmsprop}, {"adagrad", &Application::update_adagrad},
        {"lars", &Application::update_lars},       {"lamb", &Application::update_lamb},
        {"muon", &Application::update_muon}};
    return table;
  }

  // Hidden matrices first, and those that decay.
  std::vector<Group> groups(const std::vector<ParameterGradient>& parameters) {
    std::map<std::tuple<bool, bool, double>, Group> by_treatment;
    for (const ParameterGradient& p : parameters) {
      const bool is_hidden = hidden_.contains(p.parameter);
      const bool by_adamw = options_.name == "muon" && !is_hidden;
      const bool decays =
          options_.decay_norm_and_bias || state_of(builder_.graph(), p.parameter).decay;
      const double factor = rate_factor(options_.rates, builder_.graph().value(p.parameter).name) *
                            (by_adamw ? options_.adamw_rate_factor : 1);
      Group& group = by_treatment[{!is_hidden, !decays, factor}];
      group.is_hidden = is_hidden;
      group.decays = decays;
      group.parameters.push_back(p.parameter);
      group.gradients.push_back(p.gradient);
    }
    std::vector<Group> groups;
    for (auto& [treatment, group] : by_treatment) {
      const double factor = std::get<double>(treatment);
      group.weight_decay = group.decays ? options_.weight_decay : 0;
      group.learning_rate =
          factor == 1 ? learning_rate_ : ops::scale(builder_, learning_rate_, factor);
      split(group, groups);
    }
    return groups;
  }

  // Into groups of options_.numbers_at_once, in the order of the parameters.
  void split(const Group& group, std::vector<Group>& groups) const {
    std::int64_t left = 0;
    for (std::size_t i = 0; i < group.parameters.size(); ++i) {
      const std::int64_t numbers = builder_.type(group.parameters[i]).shape.elements();
      if (i == 0 || (options_.numbers_at_once > 0 && numbers > left)) {
        groups.push_back(group);
        groups.back().parameters.clear();
        groups.back().gradients.clear();
        left = options_.numbers_at_once;
      }
      left -= numbers;
      groups.back().parameters.push_back(group.parameters[i]);
      groups.back().gradients.push_back(group.gradients[i]);
    }
  }

  ValueId gradient_scale(const std::vector<ParameterGradient>& parameters) {
    if (options_.clip_norm == 0) return ops::constant(builder_, {DType::kF32, {}}, 1.0);
    std::vector<ValueId> gradients;
    for (const ParameterGradient& p : parameters) gradients.push_back(p.gradient);
    return ops::clip_factor(builder_, ops::sum_of_squares(builder_, gradients), options_.clip_norm);
  }

  // The number of this step, counted from 1.
  ValueId step_count() {
    if (step_count_ != kNoValue) return step_count_;
    const TensorType scalar{DType::kF32, {}};
    const ValueId taken = builder_.state("step", scalar, State::Role::kOptimizer, {});
    const ValueId count = ops::add(builder_, taken, ops::constant(builder_, scalar, 1.0));
    builder_.set_next(taken, count);
    return step_count_ = count;
  }

  // A state of zeros beside a parameter, named after it.
  ValueId state(ValueId parameter, std::string_view suffix) {
    builder_.set_scope_name("");  // parameters' names are complete
    const std::string name = fmt::format("{}{}", builder_.graph().value(parameter).name, suffix);
    const ValueId state =
        builder_.state(name, builder_.type(parameter), State::Role::kOptimizer, {});
    builder_.set_scope_name("optimizer");
    return state;
  }
  std::vector<ValueId> states(const Group& group, std::string_view suffix) {
    std::vector<ValueId> result;
    for (const ValueId parameter : group.parameters) result.push_back(state(parameter, suffix));
    return result;
  }

  void update_averages(const std::vector<ParameterGradient>& parameters) {
    // A number that floats hold, as they hold 1 - share: so the two weights add up to 1 exactly.
    const double share = 1.0 - static_cast<float>(options_.ema_decay);
    for (const ParameterGradient& p : parameters) {
      const ValueId average = state(p.parameter, kAverageSuffix);
      const ValueId next = state_of(builder_.graph(), p.parameter).next;
      builder_.set_next(average, ops::moving_average(builder_, average, next, share));
    }
  }

  // None without momentum.
  std::vector<ValueId> momenta_of(const Group& group) {
    return options_.momentum == 0 ? std::vector<ValueId>() : states(group, ".momentum");
  }

  static std::vector<ParameterGradient> pairs(const Group& group) {
    std::vector<ParameterGradient> result;
    for (std::size_t i = 0; i < group.parameters.size(); ++i) {
      result.push_back({group.parameters[i], group.gradients[i]});
    }
    return result;
  }

  void set_next(const std::vector<ValueId>& states, const std::vector<ValueId>& next) {
    for (std::size_t i = 0; i < states.size(); ++i) builder_.set_next(states[i], next[i]);
  }

  void update_sgd(const Group& group) {
    const std::vector<ValueId> momenta = momenta_of(group);
    const ops::SgdUpdate next = ops::sgd_update(builder_, group.learning_rate, gradient_scale_,
                                                group.parameters, group.gradients, momenta,
                                                {.momentum = options_.momentum,
                                                 .nesterov = options_.nesterov,
                                                 .weight_decay = group.weight_decay,
                                                 .decoupled = options_.decoupled});
    set_next(group.parameters, next.parameters);
    set_next(momenta, next.momenta);
  }

  void update_adam(const Group& group) {
    const ValueId count = step_count();
    const std::vector<ValueId> first = states(group, ".adam_m");
    const std::vector<ValueId> second = states(group, ".adam_v");
    const ops::AdamUpdate next =
        ops::adam_update(builder_, group.learning_rate, gradient_scale_, count, group.parameters,
                         group.gradients, first, second,
                         {.beta1 = options_.beta1,
                          .beta2 = options_.beta2,
                          .epsilon = options_.epsilon,
                          .weight_decay = group.weight_decay,
                          .decoupled = is_decoupled()});
    set_next(group.parameters, next.parameters);
    set_next(first, next.first_moments);
    set_next(second, next.second_moments);
  }

  void update_lion(const Group& group) {
    const std::vector<ValueId> momenta = states(group, ".momentum");
    const ops::LionUpdate next = ops::lion_update(
        builder_, group.learning_rate, gradient_scale_, group.parameters, group.gradients, momenta,
        {.beta1 = options_.beta1, .beta2 = options_.beta2, .weight_decay = group.weight_decay});
    set_next(group.parameters, next.parameters);
    set_next(momenta, next.momenta);
  }

  void update_rmsprop(const Group& group) {
    const std::vector<ValueId> averages = states(group, ".square_average");
    const std::vector<ValueId> momenta = momenta_of(group);
    const ops::RmspropUpdate next =
        ops::rmsprop_update(builder_, group.learning_rate, gradient_scale_, group.parameters,
                            group.gradients, averages, momenta,
                            {.alpha = options_.alpha,
                             .epsilon = options_.epsilon,
                             .momentum = options_.momentum,
                             .weight_decay = group.weight_decay,
                             .decoupled = options_.decoupled});
    set_next(group.parameters, next.parameters);
    set_next(averages, next.square_averages);
    set_next(momenta, next.momenta);
  }

  void update_adagrad(const Group& group) {
    const std::vector<ValueId> sums = states(group, ".square_sum");
    const ops::AdagradUpdate next = ops::adagrad_update(
        builder_, group.learning_rate, gradient_scale_, group.parameters, group.gradients, sums,
        {.epsilon = options_.epsilon,
         .weight_decay = group.weight_decay,
         .decoupled = options_.decoupled});
    set_next(group.parameters, next.parameters);
    set_next(sums, next.square_sums);
  }

  void update_lars(const Group& group) {
    if (!group.decays) return update_sgd(group);
    for (const auto& [parameter, gradient] : pairs(group)) {
      const std::vector<ValueId> momenta = options_.momentum == 0
                                               ? std::vector<ValueId>()
                                               : std::vector{state(parameter, ".momentum")};
      const ValueId ratio = ops::trust_ratio(
          builder_, ops::sums_of_squares(builder_, {parameter, gradient}), gradient_scale_,
          {.coefficient = options_.trust_coefficient, .weight_decay = group.weight_decay});
      const ops::SgdUpdate next = ops::lars_update(
          builder_, group.learning_rate, gradient_scale_, ratio, {parameter}, {gradient}, momenta,
          {.momentum = options_.momentum, .weight_decay = group.weight_decay});
      set_next({parameter}, next.parameters);
      set_next(momenta, next.momenta);
    }
  }

  void update_lamb(const Group& group) {
    if (!group.decays) return update_adam(group);
    const ValueId count = step_count(), one = ops::constant(builder_, {DType::kF32, {}}, 1.0);
    for (const auto& [parameter, gradient] : pairs(group)) {
      const ValueId first = state(parameter, ".adam_m"), second = state(parameter, ".adam_v");
      const ops::LambDirection step = ops::lamb_direction(
          builder_, gradient_scale_, count, {parameter}, {gradient}, {first}, {second},
          {.beta1 = options_.beta1,
           .beta2 = options_.beta2,
           .epsilon = options_.epsilon,
           .weight_decay = group.weight_decay});
      const ValueId sums = ops::sums_of_squares(builder_, {parameter, step.directions[0]});
      const ValueId ratio = ops::trust_ratio(builder_, sums, one, {});
      const ops::SgdUpdate next = ops::sgd_update(builder_, group.learning_rate, ratio, {parameter},
                                                  step.directions, {}, {});
      set_next({parameter}, next.parameters);
      set_next({first}, step.first_moments);
      set_next({second}, step.second_moments);
    }
  }

  void update_muon(const Group& group) {
    if (!group.is_hidden) return update_adam(group);
    for (const auto& [parameter, gradient] : pairs(group)) {
      const ValueId direction = direction_of(parameter, gradient);
      const Shape shape = builder_.shape(parameter);
      const std::int64_t columns = shape.elements() / shape[0];
      const ValueId matrix = ops::reshape(builder_, direction, {shape[0], columns});
      const ValueId step = ops::reshape(builder_, orthogonalize(builder_, matrix), shape);
      const double scale = 0.2 * std::sqrt(static_cast<double>(std::max(shape[0], columns)));
      const ops::SgdUpdate next = ops::sgd_update(
          builder_, group.learning_rate, ops::constant(builder_, {DType::kF32, {}}, scale),
          {parameter}, {step}, {}, {.weight_decay = group.weight_decay, .decoupled = true});
      set_next({parameter}, next.parameters);
    }
  }

  // Of a step, with the gradient taken into the momentum where there is one.
  ValueId direction_of(ValueId parameter, ValueId gradient) {
    if (options_.momentum == 0) {
      return options_.clip_norm == 0 ? gradient : ops::mul(builder_, gradient, gradient_scale_);
    }
    const ValueId momentum = state(parameter, ".momentum");
    const ops::Momentum next = ops::momentum(builder_, gradient_scale_, momentum, gradient,
                                             options_.momentum, options_.nesterov);
    builder_.set_next(momentum, next.momentum);
    return next.direction;
  }

  bool is_decoupled() const { return options_.decoupled || usual_options(options_.name).decoupled; }

  GraphBuilder& builder_;
  const OptimizerOptions& options_;
  ValueId learning_rate_;
  ValueId gradient_scale_ = kNoValue;
  ValueId step_count_ = kNoValue;
  std::set<ValueId> hidden_;  // parameters that muon orthogonalizes
};

}  // namespace

std::optional<RateFactor> parse_rate_factor(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == 0 || equals == text.npos) return std::nullopt;
  RateFactor rate{std::string(text.substr(0, equals)), 0};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + equals + 1, end, rate.factor);
  const bool fits = std::isfinite(rate.factor) && rate.factor >= 0;
  return error == std::errc() && stop == end && fits ? std::optional(rate) : std::nullopt;
}

OptimizerOptions usual_options(std::string_view name) {
  OptimizerOptions options{.name = std::string(name)};
  options.decoupled = name == "adamw" || name == "lion" || name == "muon";
  options.nesterov = name == "muon";
  if (name == "rmsprop") options.momentum = 0;
  if (name == "muon") options.momentum = 0.95;
  if (name == "adagrad") options.epsilon = 1e-10;
  if (name == "lamb") options.epsilon = 1e-6;
  if (name == "lion") options.beta2 = 0.99;
  return options;
}

void apply_optimizer(GraphBuilder& builder, const OptimizerOptions& options,
                     const std::vector<ParameterGradient>& parameters, ValueId learning_rate) {
  check(options);
  std::vector<std::string> names;
  for (const ParameterGradient& p : parameters) {
    names.push_back(builder.graph().value(p.parameter).name);
    if (p.gradient != kNoValue) continue;
    fail("the loss does not depend on parameter \"{}\"; leave it out of the update", names.back());
  }
  check_prefixes(options.rates, names);
  Application(builder, options, learning_rate).run(parameters);
}

}  // namespace concord

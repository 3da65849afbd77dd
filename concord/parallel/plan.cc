#include "concord/parallel/plan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <optional>
#include <tuple>

#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/parallel/candidates.h"
#include "concord/parallel/separate.h"

namespace concord::parallel {
namespace {

// The number that the text begins with, which is taken off it.
std::optional<std::int64_t> take_number(std::string_view& text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

bool take(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

std::optional<Placement> parse_placement(std::string_view text) {
  constexpr std::int64_t kMostDims = 16;
  if (text == "replicate") return Placement::replicate();
  if (!take(text, "split(")) return std::nullopt;
  const std::optional<std::int64_t> dim = take_number(text);
  if (!dim || *dim >= kMostDims) return std::nullopt;
  std::vector<std::int64_t> sections;
  while (take(text, sections.empty() ? "," : ":")) {
    while (take(text, " ")) {
    }
    const std::optional<std::int64_t> section = take_number(text);
    if (!section || *section < 1) return std::nullopt;
    sections.push_back(*section);
  }
  if (text != ")") return std::nullopt;
  return Placement::split(static_cast<int>(*dim),
                          sections.empty() ? std::vector<std::int64_t>{1} : std::move(sections));
}

constexpr std::string_view kShapeFollows = " of ";
constexpr std::string_view kMakePlan = "make one for this model with `concord plan show --out`";

// A saved plan says of every parameter, by its name, how it is placed, and which shape it has.
void check_saved(const Graph& graph, const std::vector<Pin>& pins) {
  if (std::ranges::all_of(pins, &std::string::empty, &Pin::shape)) return;
  for (const State& state : graph.states) {
    if (state.role != State::Role::kParameter) continue;
    const Value& value = graph.value(state.value);
    const std::string shape = to_string(value.type.shape);
    const auto pin = std::ranges::find_if(
        pins, [&](const Pin& one) { return fits_pattern(value.name, one.pattern); });
    if (pin == pins.end()) {
      throw PlanError(fmt::format("the plan lacks the weight {} of {}; {}", quote(value.name),
                                  shape, kMakePlan));
    }
    if (pin->shape.empty() || pin->shape == shape) continue;
    throw PlanError(fmt::format("the plan has {} of {}, and the model has it of {}; {}",
                                quote(value.name), pin->shape, shape, kMakePlan));
  }
}

// What the pins say of the states of this graph.
std::map<std::string, Placement> pinned_states(const Graph& graph, const std::vector<Pin>& pins) {
  check_saved(graph, pins);
  std::map<std::string, const Pin*> pin_of;
  std::vector<std::string_view> names, weights;
  for (const State& state : graph.states) {
    names.push_back(graph.value(state.value).name);
    if (state.role == State::Role::kParameter) weights.push_back(names.back());
  }
  for (const Pin& pin : pins) {
    bool fits_any = false;
    for (const std::string_view name : names) {
      if (!fits_pattern(name, pin.pattern)) continue;
      fits_any = true;
      const Pin*& known = pin_of[std::string(name)];
      if (known != nullptr && known->placement != pin.placement) {
        fail("parallel.place: {} is to be {} by {} and {} by {}: expected one of them", quote(name),
             pin_text(known->placement), quote(known->pattern), pin_text(pin.placement),
             quote(pin.pattern));
      }
      known = &pin;
    }
    if (!fits_any) {
      if (!pin.shape.empty()) {
        throw PlanError(fmt::format("the plan has a weight {} of {}, and the model has none; {}",
                                    quote(pin.pattern), pin.shape, kMakePlan));
      }
      fail("parallel.place: no weight is named {}; did you mean {}? (`concord info` lists them)",
           quote(pin.pattern), quote(nearest(pin.pattern, weights)));
    }
  }
  std::map<std::string, Placement> placements;
  for (const auto& [name, pin] : pin_of) placements.emplace(name, pin->placement);
  return placements;
}

// One rank has all of every tensor, whatever a pin says of it; but it may have no such dim.
void check_pins(const Graph& graph, const std::vector<Pin>& pins) {
  const std::map<std::string, Placement> pinned = pinned_states(graph, pins);
  for (const State& state : graph.states) {
    const Value& value = graph.value(state.value);
    const auto found = pinned.find(value.name);
    const int rank = value.type.shape.rank();
    if (found == pinned.end() || !found->second.is_split() || found->second.dim < rank) continue;
    fail("parallel.place: {} of {} cannot be {} along {}: expected replicate{}", quote(value.name),
         to_string(value.type.shape), pin_text(found->second), kTensorAxis,
         rank == 0 ? "" : fmt::format(" or a dim from 0 to {}", rank - 1));
  }
}

bool divides_anything(const AxisPlan& plan) {
  const auto is_split = [](const Placement& placement) { return placement.is_split(); };
  return std::ranges::any_of(plan.states, is_split) ||
         std::ranges::any_of(plan.nodes, [&](const PlacementSignature& signature) {
           return std::ranges::any_of(signature.inputs, is_split) ||
                  std::ranges::any_of(signature.outputs, is_split);
         });
}

// Some numbers of ranks that could hold parts of the state, the smallest first; "..." where there
// may be more.
std::vector<std::string> extents_that_divide(const Graph& graph, std::size_t s,
                                             bool may_split_sums) {
  constexpr std::size_t kShown = 4;
  constexpr int kTried = 16;  // each asks the rules of all ops
  const Shape& shape = graph.type(graph.states[s].value).shape;
  std::vector<std::string> extents;
  std::int64_t longest = 0;
  for (int dim = 0; dim < shape.rank(); ++dim) longest = std::max(longest, shape[dim]);
  int tried = 0;
  for (int ranks = 2; ranks <= longest; ++ranks) {
    bool divides_one = false;
    for (int dim = 0; dim < shape.rank(); ++dim) {
      divides_one = divides_one || shape[dim] % ranks == 0;
    }
    if (!divides_one) continue;
    if (extents.size() == kShown || ++tried > kTried) {
      extents.emplace_back("...");
      break;
    }
    const Candidates candidates = find_candidates(graph, ranks, may_split_sums);
    const auto is_split = [](const Placement& placement) { return placement.is_split(); };
    if (std::ranges::any_of(candidates.states[s], is_split)) {
      extents.push_back(std::to_string(ranks));
    }
  }
  return extents;
}

// The largest parameter, of those that products read if there are some.
std::size_t largest_weight(const Graph& graph) {
  const auto rating = [&](const State& state) {
    return std::tuple(state.role == State::Role::kParameter, is_divided_weight(graph, state),
                      graph.type(state.value).shape.elements());
  };
  return static_cast<std::size_t>(std::ranges::max_element(graph.states, {}, rating) -
                                  graph.states.begin());
}

[[noreturn]] void refuse_mesh(const Graph& graph, const Plan& plan) {
  const int ranks = plan.mesh.extent(kTensorAxis);
  if (graph.states.empty()) {
    fail("parallel.mesh: {} = {} divides nothing of a model without weights: expected {} = 1",
         kTensorAxis, ranks, kTensorAxis);
  }
  const std::size_t s = largest_weight(graph);
  const Value& weight = graph.value(graph.states[s].value);
  const std::vector<std::string> extents = extents_that_divide(graph, s, plan.may_split_sums);
  fail("parallel.mesh: {} = {} divides no weight and no op: {} of {} can be cut by {}", kTensorAxis,
       ranks, quote(weight.name), to_string(weight.type.shape),
       extents.empty() ? "no number of ranks: expected tensor = 1"
                       : fmt::to_string(fmt::join(extents, ", ")));
}

std::vector<WholeWeight> whole_weights(const Graph& graph, const AxisPlan& plan,
                                       const AxisOptions& options) {
  std::vector<WholeWeight> whole;
  for (std::size_t s = 0; s < graph.states.size(); ++s) {
    const Value& value = graph.value(graph.states[s].value);
    if (plan.states[s].is_split() || options.pinned_states.contains(value.name) ||
        !is_divided_weight(graph, graph.states[s])) {
      continue;
    }
    whole.push_back({value.name, value.type.shape});
  }
  std::ranges::stable_sort(whole, std::greater(),
                           [](const WholeWeight& weight) { return weight.shape.elements(); });
  return whole;
}

}  // namespace

Pin parse_pin(std::string_view pattern, std::string_view text) {
  const std::size_t follows = text.find(kShapeFollows);
  const std::string_view wish = text.substr(0, follows);
  const std::string_view shape =
      follows == text.npos ? std::string_view() : text.substr(follows + kShapeFollows.size());
  const bool is_shape =
      follows == text.npos || (shape.size() > 1 && shape.front() == '[' && shape.back() == ']');
  const std::size_t colon = wish.find(':');
  const std::string_view axis = wish.substr(0, colon);
  if (colon != wish.npos && axis != kTensorAxis) {
    fail(
        "parallel.place: {} = {}: expected the axis {}, and given {} (the axes are {} and {}; what "
        "ranks along {} divide, parallel.zero says)",
        quote(pattern), quote(text), quote(kTensorAxis), quote(axis), kDataAxis, kTensorAxis,
        kDataAxis);
  }
  const auto placement =
      colon == wish.npos ? std::nullopt : parse_placement(wish.substr(colon + 1));
  if (!placement || !is_shape) {
    fail(
        "parallel.place: {} = {}: expected \"tensor:replicate\", \"tensor:split(DIM)\", or "
        "\"tensor:split(DIM, N)\" for a dim of N sections that are cut each",
        quote(pattern), quote(text));
  }
  return {std::string(pattern), std::string(axis), *placement, std::string(shape)};
}

std::string pin_text(const Placement& placement) {
  if (placement.is_replicate()) return "replicate";
  CONCORD_CHECK(placement.is_split());
  if (placement.sections == std::vector<std::int64_t>{1}) {
    return fmt::format("split({})", placement.dim);
  }
  return fmt::format("split({}, {})", placement.dim, fmt::join(placement.sections, ":"));
}

bool gathers_updates(const Plan& plan) {
  return plan.mesh.extent(kDataAxis) > 1 && plan.zero > 0 && !plan.in_common;
}

Graph divide(const Graph& graph, Plan& plan, int rank) {
  const int ranks = plan.mesh.extent(kTensorAxis);
  const bool decides = plan.states.empty();
  if (ranks == 1) {
    const bool trains = std::ranges::any_of(
        graph.states, [](const State& state) { return state.next != kNoValue; });
    if (decides && trains) check_pins(graph, plan.pins);
    if (plan.mesh.extent(kPipeAxis) > 1) return separate(graph, /*sums_too=*/false);
    // Then what one parameter's update gives is gathered while the next one's is computed.
    return gathers_updates(plan) ? separate(graph) : graph;
  }
  const Graph apart = separate(graph);
  AxisOptions options{
      .machine = plan.machine, .sums = plan.sums, .may_split_sums = plan.may_split_sums};
  options.pinned_states = decides ? pinned_states(apart, plan.pins) : plan.states;
  options.pins_are_wishes = decides;
  const bool trains =
      std::ranges::any_of(apart.states, [](const State& state) { return state.next != kNoValue; });
  if (!trains) options.sums.clear();  // an evaluation adds up other values
  const AxisPlan chosen = choose_plan(apart, kTensorAxis, ranks, options);
  if (decides) {
    if (!divides_anything(chosen)) {
      if (plan.pins.empty()) refuse_mesh(apart, plan);
      throw PlanError(
          fmt::format("parallel.place: with these placements {} = {} divides no weight and no op: "
                      "leave out those of weights that are to be divided, or set {} = 1",
                      kTensorAxis, ranks, kTensorAxis));
    }
    plan.whole_weights = whole_weights(apart, chosen, options);
    for (std::size_t s = 0; s < apart.states.size(); ++s) {
      plan.states[apart.value(apart.states[s].value).name] = chosen.states[s];
    }
    plan.sums = placements_of_sums(apart, chosen);
  }
  return apply_plan(apart, chosen,
                    {std::string(kTensorAxis), ranks, plan.mesh.coordinate(rank, kTensorAxis)});
}

}  // namespace concord::parallel

#include "concord/parallel/axis_plan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/parallel/candidates.h"
#include "concord/parallel/elimination.h"
#include "concord/parallel/plan.h"

namespace concord::parallel {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

bool is_split(const Placement& placement) { return placement.is_split(); }

// Seconds that it takes to change the placement of a value.
class ChangeCost {
 public:
  ChangeCost(const Graph& graph, int ranks, const MachineCost& machine)
      : graph_(graph), ranks_(ranks), machine_(machine) {}

  double operator()(ValueId id, const Placement& from, const Placement& to) const {
    if (from == to) return 0;
    const TensorType& type = graph_.type(id);
    const auto bytes = static_cast<double>(type.bytes());
    const double n = ranks_;
    const bool is_number = is_floating(type.dtype);
    if (to.is_partial()) return from.is_replicate() && is_number ? local(bytes) : kNever;
    if (from.is_replicate()) return local(bytes / n);
    if (from.is_partial() && !is_number) return kNever;
    if (from.is_partial() && to.is_replicate()) return sent(2 * (n - 1) / n * bytes);
    if (from.is_partial() || to.is_replicate()) return sent((n - 1) / n * bytes);
    return sent((n - 1) / (n * n) * bytes);
  }
  double sent(double bytes) const {
    return machine_.seconds_per_collective + bytes / machine_.link_bytes_per_second;
  }

 private:
  double local(double bytes) const {
    return machine_.seconds_per_op + 2 * bytes / machine_.memory_bytes_per_second;
  }

  const Graph& graph_;
  int ranks_;
  const MachineCost& machine_;
};

// The variables of the elimination are the states and the nodes. An option of one is a placement or
// a signature; of values that several read, in two forms: as it is, or gathered once for all who
// want it whole.
class Chooser {
 public:
  Chooser(const Graph& graph, std::string_view axis, int ranks, const AxisOptions& options)
      : graph_(graph),
        axis_(axis),
        ranks_(ranks),
        options_(options),
        candidates_(find_candidates(graph, ranks, options.may_split_sums)),
        change_(graph, ranks, options_.machine),
        reads_(graph.values.size(), 0),
        producer_(graph.values.size(), kInput) {}

  AxisPlan run() {
    pin_states();
    pin_sums();
    for (const Node& node : graph_.nodes) {
      for (const ValueId id : node.inputs) ++reads_[index(id)];
    }
    add_variables();
    add_reads();
    const Elimination::Solution solution = elimination_.solve();
    AxisPlan plan{.seconds = solution.cost, .is_exact = solution.is_exact};
    for (std::size_t s = 0; s < graph_.states.size(); ++s) {
      const StateOption& option = state_options_[s][solution.options[s]];
      plan.states.push_back(option.placement);
      if (option.gathered) plan.gathered.push_back(graph_.states[s].value);
    }
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      const NodeOption& option = node_options_[n][solution.options[graph_.states.size() + n]];
      plan.nodes.push_back(candidates_.nodes[n][option.signature]);
      if (!option.gathered) continue;
      for (const ValueId output : graph_.nodes[n].outputs) {
        if (reads_[index(output)] > 1) plan.gathered.push_back(output);
      }
    }
    CONCORD_CHECK(solution.cost < kNever, "no plan along axis {}", axis_);
    return plan;
  }

 private:
  static constexpr int kInput = -1;  // the producer of what is replicated anyway
  struct StateOption {
    Placement placement;
    bool gathered = false;
  };
  struct NodeOption {
    std::size_t signature = 0;
    bool gathered = false;
  };
  struct Lies {
    const Placement* placement;
    bool gathered;
  };

  void pin_states() {
    for (std::size_t s = 0; s < graph_.states.size(); ++s) {
      const std::string& name = graph_.value(graph_.states[s].value).name;
      const auto pin = options_.pinned_states.find(name);
      if (pin == options_.pinned_states.end()) continue;
      std::vector<Placement>& allowed = candidates_.states[s];
      const bool replicated = pin->second.is_replicate();
      if (options_.pins_are_wishes && !replicated && std::ranges::count(allowed, pin->second) == 0)
        refuse(name, pin->second, s);
      allowed = {pin->second};
    }
  }

  [[noreturn]] void refuse(const std::string& name, const Placement& wish, std::size_t s) const {
    std::vector<std::string> allowed = {pin_text(Placement::replicate())};
    for (const Placement& placement : candidates_.states[s]) {
      if (placement.is_split()) allowed.push_back(pin_text(placement));
    }
    throw PlanError(fmt::format(
        "parallel.place: {} of {} cannot be {} on the {} ranks of axis {}: its ops allow {}",
        quote(name), to_string(graph_.type(graph_.states[s].value).shape), pin_text(wish), ranks_,
        axis_, fmt::join(allowed, ", ")));
  }

  void pin_sums() {
    std::size_t next = 0;
    for (std::size_t n = 0; n < graph_.nodes.size() && !options_.sums.empty(); ++n) {
      if (graph_.nodes[n].op != "leaf_sum") continue;
      CONCORD_CHECK(next < options_.sums.size(), "programs of one step sum the same values");
      const Placement& wanted = options_.sums[next++];
      std::erase_if(candidates_.nodes[n], [&](const PlacementSignature& signature) {
        return signature.outputs[0] != wanted;
      });
      CONCORD_CHECK(!candidates_.nodes[n].empty(), "the sum of {} as {}", graph_.nodes[n].name,
                    to_string(wanted));
    }
  }

  void add_variables() {
    for (std::size_t s = 0; s < graph_.states.size(); ++s) {
      const ValueId value = graph_.states[s].value;
      producer_[index(value)] = static_cast<int>(s);
      std::vector<StateOption> options;
      for (const Placement& placement : candidates_.states[s]) {
        options.push_back({placement, false});
        if (placement.is_split() && reads_[index(value)] > 1) options.push_back({placement, true});
      }
      std::vector<double> costs;
      for (const StateOption& option : options) {
        costs.push_back(option.gathered ? change_(value, option.placement, Placement::replicate())
                                        : 0);
      }
      elimination_.add(elimination_.add_variable(options.size()), std::move(costs));
      state_options_.push_back(std::move(options));
    }
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) add_node(n);
  }

  void add_node(std::size_t n) {
    const Node& node = graph_.nodes[n];
    std::vector<NodeOption> options;
    std::vector<double> costs;
    for (std::size_t s = 0; s < candidates_.nodes[n].size(); ++s) {
      const PlacementSignature& signature = candidates_.nodes[n][s];
      const double cost = cost_of_signature(node, signature);
      options.push_back({s, false});
      costs.push_back(cost);
      double gathering = 0;
      for (std::size_t o = 0; o < node.outputs.size(); ++o) {
        if (reads_[index(node.outputs[o])] < 2) continue;
        gathering += change_(node.outputs[o], signature.outputs[o], Placement::replicate());
      }
      if (gathering == 0) continue;
      options.push_back({s, true});
      costs.push_back(cost + gathering);
    }
    const int variable = elimination_.add_variable(options.size());
    for (const ValueId output : node.outputs) producer_[index(output)] = variable;
    elimination_.add(variable, std::move(costs));
    node_options_.push_back(std::move(options));
  }

  double cost_of_signature(const Node& node, const PlacementSignature& signature) const {
    const bool divides = std::ranges::any_of(signature.inputs, is_split) ||
                         std::ranges::any_of(signature.outputs, is_split);
    const double share = divides ? 1.0 / ranks_ : 1;
    double bytes = 0;
    const auto add = [&](ValueId id, const Placement& placement) {
      const auto all = static_cast<double>(graph_.type(id).bytes());
      bytes += placement.is_split() ? all / ranks_ : all;
    };
    for (std::size_t i = 0; i < node.inputs.size(); ++i) add(node.inputs[i], signature.inputs[i]);
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      add(node.outputs[o], signature.outputs[o]);
    }
    if (is_free(node)) bytes = 0;
    const double computing = cost_of(graph_, node).flops * share * signature.imbalance /
                             options_.machine.flops_per_second;
    const double moving = bytes / options_.machine.memory_bytes_per_second;
    const double inside = signature.bytes_sent == 0 ? 0 : change_.sent(signature.bytes_sent);
    return std::max(computing, moving) + inside;
  }
  // Ops that are views, or sums that are added up whoever computes them.
  static bool is_free(const Node& node) { return node.op == "reshape" || node.op == "leaf_sum"; }

  // Where the value lies if its producer takes this option.
  Lies lies(ValueId id, std::size_t option) const {
    static const Placement replicated;
    const int variable = producer_[index(id)];
    if (variable == kInput) return {&replicated, false};
    const auto states = graph_.states.size();
    const auto v = static_cast<std::size_t>(variable);
    if (v < states) {
      const StateOption& chosen = state_options_[v][option];
      return {&chosen.placement, chosen.gathered};
    }
    const NodeOption& chosen = node_options_[v - states][option];
    const Node& node = graph_.nodes[v - states];
    const auto o =
        static_cast<std::size_t>(std::ranges::find(node.outputs, id) - node.outputs.begin());
    return {&candidates_.nodes[v - states][chosen.signature].outputs[o],
            chosen.gathered && reads_[index(id)] > 1};
  }

  double cost_of_read(ValueId id, const Lies& lies, const Placement& wanted) const {
    const double as_it_is = change_(id, *lies.placement, wanted);
    if (!lies.gathered) return as_it_is;
    return std::min(as_it_is, change_(id, Placement::replicate(), wanted));
  }

  // cost[producer's option][reader's option] of reading the value under wanted(option).
  template <typename Wanted>
  void add_read(ValueId id, int reader, std::size_t reader_options, Wanted wanted) {
    const int producer = producer_[index(id)];
    const std::size_t producer_options = producer == kInput ? 1 : elimination_.options(producer);
    std::vector<double> costs;
    for (std::size_t p = 0; p < producer_options; ++p) {
      for (std::size_t r = 0; r < reader_options; ++r) {
        costs.push_back(cost_of_read(id, lies(id, p), wanted(r)));
      }
    }
    std::vector<int> variables;
    if (producer == reader) {  // a state that is its own next, or a node that reads what it makes
      CONCORD_CHECK(producer != kInput);
      std::vector<double> own;
      for (std::size_t r = 0; r < reader_options; ++r) own.push_back(costs[r * reader_options + r]);
      elimination_.add(reader, std::move(own));
      return;
    }
    if (producer != kInput) variables.push_back(producer);
    if (reader != kInput) variables.push_back(reader);
    if (!variables.empty()) elimination_.add({std::move(variables), std::move(costs)});
  }

  void add_reads() {
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      const Node& node = graph_.nodes[n];
      const int reader = static_cast<int>(graph_.states.size() + n);
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        add_read(node.inputs[i], reader, node_options_[n].size(),
                 [&](std::size_t option) -> const Placement& {
                   return candidates_.nodes[n][node_options_[n][option].signature].inputs[i];
                 });
      }
    }
    for (std::size_t s = 0; s < graph_.states.size(); ++s) {
      if (graph_.states[s].next == kNoValue) continue;
      add_read(graph_.states[s].next, static_cast<int>(s), state_options_[s].size(),
               [&](std::size_t option) -> const Placement& {
                 return state_options_[s][option].placement;
               });
    }
    const Placement replicated;
    for (const Output& output : graph_.outputs) {
      add_read(output.value, kInput, 1,
               [&](std::size_t) -> const Placement& { return replicated; });
    }
  }

  const Graph& graph_;
  std::string axis_;
  int ranks_;
  const AxisOptions& options_;
  Candidates candidates_;
  ChangeCost change_;
  std::vector<int> reads_;     // by value: by how many nodes
  std::vector<int> producer_;  // by value: a variable
  std::vector<std::vector<StateOption>> state_options_;
  std::vector<std::vector<NodeOption>> node_options_;
  Elimination elimination_;
};

}  // namespace

AxisPlan choose_plan(const Graph& graph, std::string_view axis, int ranks,
                     const AxisOptions& options) {
  return Chooser(graph, axis, ranks, options).run();
}

std::vector<Placement> placements_of_sums(const Graph& graph, const AxisPlan& plan) {
  std::vector<Placement> sums;
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    if (graph.nodes[n].op == "leaf_sum") sums.push_back(plan.nodes[n].outputs[0]);
  }
  return sums;
}

void check_plan(const Graph& graph, const AxisPlan& plan, int ranks) {
  CONCORD_CHECK(plan.nodes.size() == graph.nodes.size() &&
                plan.states.size() == graph.states.size());
  const auto replicates = [](const Placement& placement) { return placement.is_replicate(); };
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const PlacementSignature& signature = plan.nodes[n];
    if (std::ranges::all_of(signature.inputs, replicates) &&
        std::ranges::all_of(signature.outputs, replicates)) {
      continue;
    }
    std::vector<std::vector<Placement>> known;
    for (const Placement& placement : signature.inputs) known.push_back({placement});
    for (const Placement& placement : signature.outputs) known.push_back({placement});
    const Node& node = graph.nodes[n];
    if (std::ranges::count(offered_signatures(graph, node, ranks, known), signature) > 0) continue;
    std::vector<std::string> inputs, outputs;
    for (const Placement& placement : signature.inputs) inputs.push_back(to_string(placement));
    for (const Placement& placement : signature.outputs) outputs.push_back(to_string(placement));
    fail("{} of layer {}: no signature makes {} of {} on {} ranks", node.op,
         node.name.empty() ? "-" : node.name, fmt::join(outputs, ", "), fmt::join(inputs, ", "),
         ranks);
  }
}

}  // namespace concord::parallel

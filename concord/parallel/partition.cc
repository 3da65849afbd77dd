#include "concord/parallel/partition.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <set>

#include "concord/base/error.h"
#include "concord/base/exact_sum.h"
#include "concord/graph/op.h"
#include "concord/ops/collective.h"
#include "concord/ops/step.h"
#include "concord/passes/rewrite.h"

namespace concord::parallel {
namespace {

const Placement kOfLeaves = Placement::split(Placement::kLeaves);
const Placement kFlat = Placement::split(Placement::kFlat);
// Of a node of which the ranks compute parts: which outputs are flat, as 0 and 1.
constexpr std::string_view kFlatOutputs = "flat_outputs";

bool is_along_data(const Node& node) {
  return node.attributes.has("axis") && node.attributes.text("axis") == kDataAxis;
}

// --- Which placements are right ---

// How an op places its outputs, given how all inputs are placed; nullopt where it cannot take one
// of them as it is.
std::optional<std::vector<Placement>> placed_outputs(const Node& node,
                                                     const std::vector<Placement>& inputs) {
  const std::size_t outputs = node.outputs.size();
  const auto if_input_is = [&](const Placement& wanted, const Placement& output) {
    return inputs[0] == wanted ? std::optional(std::vector(outputs, output)) : std::nullopt;
  };
  if (node.op == "leaf_sum" || node.op == ops::kLeafTotal) {
    return if_input_is(kOfLeaves, Placement::partial());
  }
  if (is_along_data(node)) {
    if (node.op == ops::kReduceScatter) return if_input_is(Placement::partial(), kFlat);
    if (node.op == ops::kAllGather) return if_input_is(kFlat, Placement::replicate());
    if (node.op == ops::kShard) return if_input_is(Placement::replicate(), kFlat);
    if (inputs[0] == kFlat && node.op == ops::kAllReduce) return std::nullopt;
    return if_input_is(Placement::partial(), Placement::replicate());
  }
  if (node.op == "exact_sum_of_squares" && std::ranges::count(inputs, kFlat) > 0) {
    const bool all = std::ranges::count(inputs, kFlat) == std::ssize(inputs);
    return all ? std::optional(std::vector{Placement::partial()}) : std::nullopt;
  }
  if (std::ranges::count(inputs, Placement::partial()) > 0) return std::nullopt;
  if (std::ranges::count(inputs, kFlat) > 0) {
    if (!node.attributes.has(kFlatOutputs) || !find_op(node.op).by_number) return std::nullopt;
    std::vector<Placement> placements;
    for (const std::int64_t flat : node.attributes.integers(kFlatOutputs)) {
      placements.push_back(flat != 0 ? kFlat : Placement::replicate());
    }
    return placements;
  }
  const bool of_leaves = std::ranges::count(inputs, kOfLeaves) > 0;
  return std::vector(outputs, of_leaves ? kOfLeaves : Placement::replicate());
}

// The placements of values, as far as the nodes that make them were seen.
class Placements {
 public:
  explicit Placements(const Graph& graph) : of_value_(graph.values.size()) {
    for (const Input& input : graph.inputs) {
      if (input.kind == Input::Kind::kBatch) at(input.value) = kOfLeaves;
    }
    for (const State& state : graph.states) {
      if (state.flat && !state.flat->is_held_whole) at(state.value) = kFlat;
    }
  }

  const Placement& operator[](ValueId id) const { return of_value_[static_cast<std::size_t>(id)]; }
  void add(const Graph& graph, const Node& node) {
    of_value_.resize(graph.values.size());
    std::vector<Placement> inputs;
    for (const ValueId id : node.inputs) inputs.push_back((*this)[id]);
    const std::optional<std::vector<Placement>> outputs = placed_outputs(node, inputs);
    if (!outputs) {
      std::vector<std::string> texts;
      for (const Placement& input : inputs) texts.push_back(to_string(input));
      fail("op {} of layer {} cannot take inputs placed as {} along {}", node.op,
           node.name.empty() ? "-" : node.name, fmt::join(texts, ", "), kDataAxis);
    }
    for (std::size_t o = 0; o < outputs->size(); ++o) at(node.outputs[o]) = (*outputs)[o];
  }
  std::vector<Placement> take() { return std::move(of_value_); }

 private:
  Placement& at(ValueId id) { return of_value_[static_cast<std::size_t>(id)]; }
  std::vector<Placement> of_value_;
};

// --- Which states are shared ---

std::int64_t stored_elements(const Graph& graph, ValueId id) {
  return graph.value(id).layout.stored_elements(graph.type(id).shape);
}

bool is_large(const Graph& graph, ValueId id, const Plan& plan) {
  return graph.type(id).dtype == DType::kF32 &&
         stored_elements(graph, id) >= plan.smallest_part * plan.mesh.extent(kDataAxis);
}

// Of the large states those for which every node that computes one, or reads one in the update,
// goes number by number, computes no large one that is not among them, and reads none after it has
// been replaced: then a rank reads its own part, as long as it has not written it.
class FlatStates {
 public:
  FlatStates(const Graph& graph, const Plan& plan)
      : graph_(graph), plan_(plan), phase_(phases(graph)) {
    for (const State& state : graph.states) {
      for (const ValueId id : {state.value, state.next}) {
        if (id != kNoValue) state_of_[id] = &state;
      }
      if (!is_large(graph, state.value, plan)) whole_.insert(&state);
    }
  }

  // Until nothing changes: a node that computes one state whole needs others whole.
  std::vector<const State*> find() {
    for (std::size_t before = graph_.states.size() + 1; before != whole_.size();) {
      before = whole_.size();
      for (std::size_t n = 0; n < graph_.nodes.size(); ++n) visit(n);
    }
    std::vector<const State*> flat;
    for (const State& state : graph_.states) {
      if (!whole_.contains(&state)) flat.push_back(&state);
    }
    return flat;
  }

 private:
  // Of a node of the update: it computes a large state, and none that has to be whole. What is of
  // no state the ranks have in parts too, or gather it.
  bool goes_by_number(const Node& node) const {
    bool computes_any = false;
    for (const ValueId id : node.outputs) {
      const auto found = state_of_.find(id);
      if (found == state_of_.end() || !is_large(graph_, id, plan_)) continue;
      if (found->second->next != id || whole_.contains(found->second)) return false;
      computes_any = true;
    }
    return computes_any && find_op(node.op).by_number;
  }
  bool reads_parts_in_time(std::size_t n) const {
    return std::ranges::all_of(graph_.nodes[n].inputs, [&](ValueId id) {
      const auto found = state_of_.find(id);
      if (found == state_of_.end() || found->second->value != id) return true;
      const ValueId next = found->second->next;
      if (next == kNoValue || next == id) return true;
      return graph_.value(next).producer >= static_cast<NodeId>(n);
    });
  }
  void visit(std::size_t n) {
    const Node& node = graph_.nodes[n];
    if (node.op == "leaf_sum") return;
    const bool takes_parts = node.op == "sum_of_squares" || goes_by_number(node);
    if (phase_[n] == Phase::kUpdate && takes_parts && reads_parts_in_time(n)) return;
    // What is read before the update is read as it was.
    if (phase_[n] == Phase::kUpdate) {
      for (const ValueId id : node.inputs) touch(id);
    }
    for (const ValueId id : node.outputs) touch(id);
  }
  void touch(ValueId id) {
    if (const auto found = state_of_.find(id); found != state_of_.end()) {
      whole_.insert(found->second);
    }
  }

  const Graph& graph_;
  const Plan& plan_;
  std::vector<Phase> phase_;
  std::map<ValueId, const State*> state_of_;  // by its value, and by what it becomes
  std::set<const State*> whole_;
};

bool is_held_whole(const State& state, const Plan& plan) {
  if (state.role == State::Role::kOptimizer) return false;
  return state.role != State::Role::kParameter || plan.zero < 3 || plan.in_common;
}

std::map<std::string, bool> choose_flat_states(const Graph& graph, const Plan& plan) {
  std::map<std::string, bool> flat;
  for (const State* state : FlatStates(graph, plan).find()) {
    flat[graph.value(state->value).name] = is_held_whole(*state, plan);
  }
  if (plan.zero == 0) return flat;
  for (const State& state : graph.states) {
    const std::string& name = graph.value(state.value).name;
    if (state.role != State::Role::kOptimizer || flat.contains(name) ||
        !is_large(graph, state.value, plan)) {
      continue;
    }
    fail(
        "parallel.zero = {}: the optimizer's state \"{}\" cannot be divided, since its update "
        "needs the whole tensor: expected parallel.zero = 0, or an update by ops that go number by "
        "number",
        plan.zero, name);
  }
  return flat;
}

// --- The graph of one rank ---

class Partitioner {
 public:
  Partitioner(const Graph& source, const Plan& plan, const AxisPlace& data)
      : source_(source),
        plan_(plan),
        data_(data),
        phase_(phases(source)),
        rewriter_(source),
        flat_(source.values.size(), kNoValue) {
    if (plan.flat) cut_states(*plan.flat);
    placements_.emplace(rewriter_.graph());
    plan_gathers();
  }

  Graph run() {
    for (std::size_t n = 0; n < source_.nodes.size(); ++n) {
      const Node& node = source_.nodes[n];
      gather_for(n);
      if (phase_[n] == Phase::kUpdate) gather_for_update(n);
      if (is_of_parts(n)) {
        if (goes_by_number(node)) derive_part(node);
      } else if (is_shared_update(n)) {
        share_update(node);
      } else if (node.op == "sum_of_squares" && plan_.flat && phase_[n] == Phase::kUpdate) {
        share_sum_of_squares(node);
      } else {
        for (const ValueId input : node.inputs) complete(input);
        rewriter_.copy(node);
        place_last();
      }
    }
    for (const Output& output : source_.outputs) complete(output.value);
    for (std::size_t s = 0; s < source_.states.size(); ++s) finish_state(s);
    return rewriter_.finish();
  }

 private:
  Graph& graph() { return rewriter_.graph(); }

  void cut_states(const std::map<std::string, bool>& flat) {
    for (std::size_t s = 0; s < source_.states.size(); ++s) {
      State& state = graph().states[s];
      Value& value = graph().value(state.value);
      const auto found = flat.find(value.name);
      if (found == flat.end()) continue;
      FlatCut cut = cut_of(value);
      // Where nothing is updated, what lies in common can be read whole.
      cut.is_held_whole = found->second || (plan_.in_common && state.next == kNoValue);
      if (!cut.is_held_whole) {
        value.type.shape = {cut.part};
        value.layout = Layout();
        flat_[at(source_.states[s].value)] = state.value;
      }
      state.flat = cut;
    }
  }

  // What a microbatch reads of states that are held in parts, or of what is computed from these
  // alone before, is gathered again for every use, and gone after it. Neighbouring uses share it.
  // Each gather begins where the one before is first needed.
  struct Gather {
    ValueId value;
    std::size_t first_use;  // node
  };

  void plan_gathers() {
    of_parts_.resize(source_.values.size());
    for (std::size_t s = 0; s < source_.states.size(); ++s) {
      const ValueId value = source_.states[s].value;
      of_parts_[at(value)] = flat_[at(value)] != kNoValue;
    }
    constexpr std::size_t kNeighbours = 2;
    std::map<ValueId, std::size_t> last;  // gather of a value
    for (std::size_t n = 0; n < source_.nodes.size(); ++n) {
      for (const ValueId output : source_.nodes[n].outputs) of_parts_[at(output)] = is_of_parts(n);
      if (phase_[n] != Phase::kMicrobatch) continue;
      for (const ValueId input : source_.nodes[n].inputs) {
        if (!of_parts_[at(input)]) continue;
        const auto found = last.find(input);
        if (found != last.end() && found->second + kNeighbours >= gathers_.size()) continue;
        last[input] = gathers_.size();
        gathers_.push_back({input, n});
      }
    }
  }

  // Of a node of the prologue that reads such values.
  bool is_of_parts(std::size_t n) const {
    return phase_[n] == Phase::kPrologue &&
           std::ranges::any_of(source_.nodes[n].inputs,
                               [&](ValueId input) { return of_parts_[at(input)]; });
  }
  bool goes_by_number(const Node& node) const {
    return find_op(node.op).by_number && node.inputs.size() == 1 &&
           flat_[at(node.inputs[0])] != kNoValue;
  }

  void derive_part(const Node& old_node) {
    Node node = old_node;
    node.inputs = {flat_[at(old_node.inputs[0])]};
    node.attributes.set(std::string(kFlatOutputs), std::vector<std::int64_t>{1});
    flat_[at(old_node.outputs[0])] =
        rewriter_.add(std::move(node), {flat_value(source_.value(old_node.outputs[0]))})[0];
    place_last();
  }

  void gather_for(std::size_t n) {
    const auto is_due = [&](std::size_t g) { return gathers_[g].first_use <= n; };
    for (; next_gather_ < gathers_.size(); ++next_gather_) {
      if (!is_due(next_gather_) && (next_gather_ == 0 || !is_due(next_gather_ - 1))) return;
      const ValueId value = gathers_[next_gather_].value;
      rewriter_.map(value, gathered(value, batch_input()));
    }
  }

  // What an update reads of the same: the microbatch's is gone.
  void gather_for_update(std::size_t n) {
    for (const ValueId input : source_.nodes[n].inputs) {
      if (!of_parts_[at(input)] || flat_[at(input)] != kNoValue) continue;
      const auto sum = std::ranges::find(graph().nodes, "leaf_sum", &Node::op);
      if (sum == graph().nodes.end()) continue;
      rewriter_.map(input, gathered(input, sum->outputs[0]));
    }
  }

  // `after` as an input makes it part of that value's phase (graph.h, Phase).
  ValueId gathered(ValueId old_value, ValueId after) {
    const Value& value = source_.value(old_value);
    if (const ValueId part = flat_[at(old_value)]; part != kNoValue) {
      return add_flat(ops::kAllGather, part, value, value, after);
    }
    Node node = source_.node(value.producer);
    for (ValueId& input : node.inputs) {
      input = of_parts_[at(input)] ? gathered(input, after) : rewriter_[input];
    }
    std::vector<Value> outputs;
    for (const ValueId output : node.outputs) outputs.push_back(source_.value(output));
    const std::size_t which =
        static_cast<std::size_t>(std::ranges::find(node.outputs, old_value) - node.outputs.begin());
    const ValueId id = rewriter_.add(std::move(node), outputs)[which];
    place_last();
    return id;
  }

  ValueId batch_input() const {
    const auto found = std::ranges::find(source_.inputs, Input::Kind::kBatch, &Input::kind);
    return found == source_.inputs.end() ? kNoValue : rewriter_[found->value];
  }

  FlatCut cut_of(const Value& value) const {
    const std::int64_t stored = value.layout.stored_elements(value.type.shape);
    return {.axis = data_.name,
            .type = value.type,
            .layout = value.layout,
            .ranks = data_.ranks,
            .index = data_.index,
            .part = flat_part(stored, data_.ranks)};
  }

  bool is_large(ValueId old_value) const { return parallel::is_large(source_, old_value, plan_); }
  bool is_flat_state(ValueId old_value) const {
    return std::ranges::any_of(source_.states, [&](const State& state) {
      return state.value == old_value && plan_.flat->contains(source_.value(old_value).name);
    });
  }
  // FlatStates has seen that a node that computes one of these goes number by number.
  bool is_shared_update(std::size_t n) const {
    if (!plan_.flat || phase_[n] != Phase::kUpdate) return false;
    return std::ranges::any_of(source_.states, [&](const State& state) {
      return state.next != kNoValue && state.next != state.value &&
             source_.value(state.next).producer == static_cast<NodeId>(n) &&
             plan_.flat->contains(source_.value(state.value).name);
    });
  }

  void share_update(const Node& old_node) {
    Node node = old_node;
    for (ValueId& input : node.inputs) input = is_large(input) ? flat(input) : whole(input);
    std::vector<Value> outputs;
    std::vector<std::int64_t> are_flat;
    for (const ValueId output : old_node.outputs) {
      outputs.push_back(source_.value(output));
      are_flat.push_back(is_large(output) ? 1 : 0);
      if (is_large(output)) outputs.back() = flat_value(source_.value(output));
    }
    node.attributes.set(std::string(kFlatOutputs), are_flat);
    const std::vector<ValueId> ids = rewriter_.add(std::move(node), outputs);
    place_last();
    for (std::size_t o = 0; o < ids.size(); ++o) {
      if (are_flat[o] != 0) {
        flat_[at(old_node.outputs[o])] = ids[o];
        if (is_next_of_whole(old_node.outputs[o])) complete(old_node.outputs[o]);
      } else {
        rewriter_.map(old_node.outputs[o], ids[o]);
      }
    }
  }

  // Each rank adds up what it has, or can have, a part of, and what all have whole by itself. Sums
  // apart, of values of one size, are all of the one kind or of the other.
  void share_sum_of_squares(const Node& old_node) {
    const bool apart = old_node.attributes.has("apart");
    const bool any = std::ranges::any_of(old_node.inputs, [&](ValueId id) { return has_part(id); });
    std::vector<ValueId> parts, wholes, sums;
    Attributes of_parts = old_node.attributes;
    std::vector<std::int64_t> numbers;
    for (const ValueId input : old_node.inputs) {
      if (apart ? any : has_part(input)) {
        parts.push_back(flat(input));
        numbers.push_back(own_numbers(input));
      } else {
        wholes.push_back(whole(input));
      }
    }
    of_parts.set("numbers", numbers);
    Value exact{.type = {DType::kI64, {ExactSum::kDigits}}};
    if (apart) exact.type.shape = {std::ssize(old_node.inputs), ExactSum::kDigits};
    const auto add = [&](std::string_view op, std::vector<ValueId> inputs, const Attributes& how,
                         const Value& output) {
      const ValueId id = rewriter_.add({.op = std::string(op),
                                        .inputs = std::move(inputs),
                                        .outputs = {},
                                        .attributes = how,
                                        .name = old_node.name},
                                       {output})[0];
      place_last();
      return id;
    };
    if (parts.empty()) {
      rewriter_.copy(old_node);
      return place_last();
    }
    sums.push_back(reduced(add("exact_sum_of_squares", parts, of_parts, exact)));
    if (!wholes.empty()) {
      sums.push_back(add("exact_sum_of_squares", wholes, old_node.attributes, exact));
    }
    rewriter_.map(old_node.outputs[0],
                  add("rounded_sum", sums, {}, source_.value(old_node.outputs[0])));
  }
  // How many numbers of the rank's part are of the value: others may follow.
  std::int64_t own_numbers(ValueId old_value) const {
    const FlatCut cut = cut_of(source_.value(old_value));
    return std::clamp<std::int64_t>(stored_elements(source_, old_value) - cut.index * cut.part, 0,
                                    cut.part);
  }
  // Of what a rank has a part, or gets one; none of what it has computed whole.
  bool has_part(ValueId old_value) const {
    if (flat_[at(old_value)] != kNoValue || is_flat_state(old_value)) return true;
    return is_large(old_value) && (*placements_)[rewriter_[old_value]] == Placement::partial();
  }

  // Of a state that each rank holds whole in memory of its own: others' parts come at once, while
  // the updates after this one are computed.
  bool is_next_of_whole(ValueId old_value) const {
    if (!gathers_updates(plan_)) return false;
    const auto state = std::ranges::find(source_.states, old_value, &State::next);
    return state != source_.states.end() && plan_.flat->at(source_.value(state->value).name);
  }

  // What the state becomes, as the rank holds it.
  void finish_state(std::size_t s) {
    const State& state = source_.states[s];
    if (state.next == kNoValue) return;
    const std::optional<FlatCut>& cut = graph().states[s].flat;
    if (!cut || cut->is_held_whole) return complete(state.next);
    rewriter_.map(state.next, flat(state.next));
  }

  Value flat_value(const Value& whole) const {
    return {.type = {whole.type.dtype, {cut_of(whole).part}}};
  }

  // This rank's part of an old value.
  ValueId flat(ValueId old_value) {
    ValueId& known = flat_[at(old_value)];
    if (known != kNoValue) return known;
    const ValueId value = rewriter_[old_value];
    const bool is_partial = (*placements_)[value] == Placement::partial();
    return known = add_flat(is_partial ? ops::kReduceScatter : ops::kShard, value,
                            source_.value(old_value), flat_value(source_.value(old_value)));
  }

  // All of an old value. From here on it is no summand, but the sum.
  ValueId whole(ValueId old_value) {
    complete(old_value);
    return rewriter_[old_value];
  }
  void complete(ValueId old_value) {
    const ValueId part = flat_[at(old_value)];
    const bool has_whole = rewriter_.has(old_value) && rewriter_[old_value] != part;
    const bool is_whole = has_whole && (*placements_)[rewriter_[old_value]] != Placement::partial();
    if (is_whole) return;
    if (part != kNoValue) {  // a summand that was scattered is not summed again
      rewriter_.map(old_value, add_flat(ops::kAllGather, part, source_.value(old_value),
                                        source_.value(old_value)));
    } else {
      rewriter_.map(old_value,
                    has_whole ? reduced(rewriter_[old_value]) : gathered(old_value, batch_input()));
    }
  }

  ValueId add_flat(std::string_view op, ValueId x, const Value& whole, const Value& output,
                   ValueId after = kNoValue) {
    Node node = ops::flat_node(op, x, cut_of(whole));
    if (after != kNoValue) node.inputs.push_back(after);
    node.name = name_of(x);
    const ValueId id =
        rewriter_.add(std::move(node), {{.type = output.type, .layout = output.layout}})[0];
    place_last();
    return id;
  }

  ValueId reduced(ValueId value) {
    const TensorType type = graph().type(value);
    const Layout layout = graph().value(value).layout;
    const Node all_reduce{
        .op = std::string(ops::kAllReduce),
        .inputs = {value},
        .outputs = {},
        .attributes = {{"axis", data_.name}, {"ranks", std::int64_t{data_.ranks}}},
        .name = name_of(value)};
    const ValueId id = rewriter_.add(all_reduce, {{.type = type, .layout = layout}})[0];
    place_last();
    return id;
  }

  // The layer, or the state.
  std::string name_of(ValueId value) {
    const NodeId producer = graph().value(value).producer;
    return producer == kNoNode ? graph().value(value).name : graph().node(producer).name;
  }
  void place_last() { placements_->add(graph(), graph().nodes.back()); }
  static std::size_t at(ValueId id) { return static_cast<std::size_t>(id); }

  const Graph& source_;
  const Plan& plan_;
  AxisPlace data_;
  std::vector<Phase> phase_;
  Rewriter rewriter_;
  std::vector<ValueId> flat_;   // by old value: this rank's part of it
  std::vector<bool> of_parts_;  // by old value: of a state held in parts, or computed from it alone
  std::vector<Gather> gathers_;
  std::size_t next_gather_ = 0;
  std::optional<Placements> placements_;
};

}  // namespace

Graph partition(const Graph& graph, Plan& plan, int rank) {
  const int ranks = plan.mesh.extent(kDataAxis);
  if (ranks == 1) return graph;
  if (!plan.flat && (plan.zero > 0 || plan.in_common)) plan.flat = choose_flat_states(graph, plan);
  const AxisPlace data{std::string(kDataAxis), ranks, plan.mesh.coordinate(rank, kDataAxis)};
  return Partitioner(graph, plan, data).run();
}

std::vector<Placement> placements_along_data(const Graph& graph) {
  Placements placements(graph);
  for (const Node& node : graph.nodes) placements.add(graph, node);
  return placements.take();
}

}  // namespace concord::parallel

#include <map>

#include "concord/base/error.h"
#include "concord/graph/builder.h"
#include "concord/ops/collective.h"
#include "concord/parallel/axis_plan.h"

namespace concord::parallel {
namespace {

class Application {
 public:
  Application(const Graph& graph, const AxisPlan& plan, const AxisPlace& axis)
      : whole_(graph), plan_(plan), axis_(axis), builder_(local_), held_(graph.values.size()) {
    for (const ValueId id : plan.gathered) gather(id);
    for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
      const std::vector<ValueId>& inputs = graph.nodes[n].inputs;
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        if (plan.nodes[n].inputs[i].is_replicate()) gather(inputs[i]);
      }
    }
    for (std::size_t s = 0; s < graph.states.size(); ++s) {
      const ValueId next = graph.states[s].next;
      if (next != kNoValue && plan.states[s].is_replicate()) gather(next);
    }
    for (const Output& output : graph.outputs) gather(output.value);
  }

  Graph run() {
    for (const Input& input : whole_.inputs) {
      const Value& value = whole_.value(input.value);
      hold(input.value, Placement::replicate(), builder_.input(value.name, value.type, input.kind));
    }
    for (std::size_t s = 0; s < whole_.states.size(); ++s) add_state(s);
    for (std::size_t n = 0; n < whole_.nodes.size(); ++n) add_node(n);
    builder_.set_scope_name("");
    for (std::size_t s = 0; s < whole_.states.size(); ++s) {
      const State& state = whole_.states[s];
      if (state.next == kNoValue) continue;
      const ValueId own = held(state.value).placed.at(key(plan_.states[s]));
      builder_.set_next(own, wanted(state.next, plan_.states[s]));
    }
    for (const Output& output : whole_.outputs) {
      builder_.output(output.name, wanted(output.value, Placement::replicate()));
    }
    return std::move(local_);
  }

 private:
  // Under which placements this rank has a value so far.
  struct Held {
    Placement produced;
    bool is_gathered = false;               // whoever wants it otherwise takes it from all of it
    std::map<std::string, ValueId> placed;  // by the placement's text
  };
  Held& held(ValueId whole) { return held_[static_cast<std::size_t>(whole)]; }
  void gather(ValueId whole) { held(whole).is_gathered = true; }
  static std::string key(const Placement& placement) { return to_string(placement); }

  void hold(ValueId whole, const Placement& placement, ValueId local) {
    const TensorType& type = whole_.type(whole);
    const TensorType expected{type.dtype, shard_shape(type.shape, placement, axis_.ranks)};
    CONCORD_CHECK(builder_.type(local) == expected, "{} of {} is {}", to_string(placement),
                  to_string(type), to_string(builder_.type(local)));
    if (held(whole).placed.empty()) held(whole).produced = placement;
    held(whole).placed.emplace(key(placement), local);
  }

  void add_state(std::size_t s) {
    const State& state = whole_.states[s];
    const Value& value = whole_.value(state.value);
    const Placement& placement = plan_.states[s];
    const Shape shape = shard_shape(value.type.shape, placement, axis_.ranks);
    const ValueId local = builder_.state(value.name, {value.type.dtype, shape}, state.role,
                                         state.initializer, state.decay);
    State& added = local_.states.back();
    added.cuts = state.cuts;
    if (placement.is_split())
      added.cuts.push_back({axis_.name, placement, axis_.ranks, axis_.index});
    hold(state.value, placement, local);
  }

  void add_node(std::size_t n) {
    const Node& node = whole_.nodes[n];
    const PlacementSignature& signature = plan_.nodes[n];
    builder_.set_scope_name(node.name);
    std::vector<ValueId> inputs;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      inputs.push_back(wanted(node.inputs[i], signature.inputs[i]));
    }
    const std::vector<ValueId> outputs = compute(node, signature, std::move(inputs));
    CONCORD_CHECK(outputs.size() == node.outputs.size(), "{}", node.op);
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      hold(node.outputs[o], signature.outputs[o], outputs[o]);
    }
  }

  std::vector<ValueId> compute(const Node& node, const PlacementSignature& signature,
                               std::vector<ValueId> inputs) {
    const Op& op = find_op(node.op);
    bool divided = signature.bytes_sent > 0;
    for (const Placement& placement : signature.inputs) divided |= !placement.is_replicate();
    for (const Placement& placement : signature.outputs) divided |= !placement.is_replicate();
    if (op.localize == nullptr || !divided) {
      return builder_.node(node.op, std::move(inputs), node.attributes);
    }
    std::vector<TensorType> of_inputs, of_outputs;
    for (const ValueId id : node.inputs) of_inputs.push_back(whole_.type(id));
    for (const ValueId id : node.outputs) of_outputs.push_back(whole_.type(id));
    LocalContext context{builder_,  node,       signature,        axis_,
                         of_inputs, of_outputs, std::move(inputs)};
    return op.localize(context);
  }

  ValueId wanted(ValueId whole, const Placement& placement) {
    const auto& placed = held(whole).placed;
    if (const auto found = placed.find(key(placement)); found != placed.end()) {
      return found->second;
    }
    const bool from_all = held(whole).is_gathered && !placement.is_replicate();
    const Placement from = from_all ? Placement::replicate() : held(whole).produced;
    const ValueId source = from_all ? wanted(whole, from) : placed.at(key(from));
    const ValueId local = ops::place(builder_, source, axis_, from, placement);
    hold(whole, placement, local);
    return local;
  }

  const Graph& whole_;
  const AxisPlan& plan_;
  AxisPlace axis_;
  Graph local_;
  GraphBuilder builder_;
  std::vector<Held> held_;  // by value of the whole graph
};

}  // namespace

Graph apply_plan(const Graph& graph, const AxisPlan& plan, const AxisPlace& axis) {
  return Application(graph, plan, axis).run();
}

}  // namespace concord::parallel

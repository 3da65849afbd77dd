#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "concord/base/error.h"
#include "concord/graph/op.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/passes/dead_code.h"
#include "concord/passes/fuse_batch_norm_relu.h"
#include "concord/passes/memory_plan.h"
#include "concord/runtime/program.h"
#include "concord/runtime/state_store.h"
#include "concord/tensor/relayout.h"

namespace concord {
namespace {

std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

Signature signature_of(const Graph& graph, const Node& node) {
  Signature signature{node, {}, {}};
  for (const ValueId id : node.inputs) {
    signature.inputs.push_back({graph.type(id), graph.value(id).layout});
  }
  for (const ValueId id : node.outputs) {
    signature.outputs.push_back({graph.type(id), graph.value(id).layout});
  }
  return signature;
}

// Ends a step: a next state that could not be computed in place is copied over the old one.
class Copy final : public Kernel {
 public:
  explicit Copy(std::size_t bytes) : bytes_(bytes) {}
  void run(std::span<std::byte* const> operands) override {
    std::memcpy(operands[1], operands[0], bytes_);
  }

 private:
  std::size_t bytes_;
};

// Gives every value an address. Vocabulary: a *slot* is a piece of the arena that one value, or
// several that follow each other in place, occupy; *time* is the index of a node in the order of
// execution (prologue, microbatch, update).
class Compiler {
 public:
  Compiler(Graph graph, KernelPolicy& policy, const StateStore& states)
      : policy_(policy), states_(states) {
    program_.graph = std::move(graph);
    address_.resize(program_.graph.values.size());
    slot_.assign(program_.graph.values.size(), kNoSlot);
    last_use_.assign(program_.graph.values.size(), -1);
  }

  Program run() {
    order_nodes();
    place_states();
    place_sums();
    find_last_uses();
    make_steps();
    plan_arena();
    return finish();
  }

 private:
  static constexpr int kNoSlot = -1;
  const Graph& graph() const { return program_.graph; }

  void order_nodes() {
    const std::vector<Phase> phase = phases(graph());
    for (const Phase wanted : {Phase::kPrologue, Phase::kMicrobatch, Phase::kUpdate}) {
      begins_[static_cast<std::size_t>(wanted)] = static_cast<int>(order_.size());
      for (std::size_t i = 0; i < phase.size(); ++i) {
        if (phase[i] == wanted) order_.push_back(static_cast<NodeId>(i));
      }
    }
  }
  Phase phase_at(int time) const {
    return time >= begins_[2]   ? Phase::kUpdate
           : time >= begins_[1] ? Phase::kMicrobatch
                                : Phase::kPrologue;
  }
  int end_of_microbatch() const { return begins_[2] - 1; }

  void place_states() {
    for (const State& state : graph().states) {
      const Value& value = graph().value(state.value);
      const StateStore::Entry* entry = states_.find(value.name);
      CONCORD_CHECK(entry != nullptr && entry->type == value.type && entry->layout == value.layout,
                    "state \"{}\"", value.name);
      address_[index(state.value)] = {Region::kStates, entry->offset};
    }
  }

  // A leaf_sum's input and output share an address: the region is summed over leaves in place.
  void place_sums() {
    for (const Node& node : graph().nodes) {
      if (node.op != "leaf_sum") continue;
      const ValueId input = node.inputs[0];
      CONCORD_CHECK(graph().type(input).dtype == DType::kF32, "leaves are summed in f32");
      CONCORD_CHECK(graph().value(input).producer != kNoNode && !address_[index(input)],
                    "a leaf_sum reads an input, a state, or a value that another leaf_sum reads");
      const Address address{Region::kSums, program_.sums_bytes};
      address_[index(input)] = address;
      address_[index(node.outputs[0])] = address;
      const Layout& layout = graph().value(input).layout;
      program_.sums.push_back({"", graph().type(input), address});
      program_.sums_layouts.push_back(layout);
      program_.sums_bytes += (stored_bytes(graph().type(input), layout) + 63) / 64 * 64;
    }
  }

  void find_last_uses() {
    for (int time = 0; time < static_cast<int>(order_.size()); ++time) {
      for (const ValueId input : graph().node(order_[static_cast<std::size_t>(time)]).inputs) {
        last_use_[index(input)] = std::max(last_use_[index(input)], extended(time, input));
      }
    }
    // Outputs and next states are read after the last step; inputs are written before the first.
    for (const Output& output : graph().outputs) last_use_[index(output.value)] = end();
    for (const State& state : graph().states) {
      if (state.next != kNoValue) last_use_[index(state.next)] = end();
    }
  }
  int end() const { return static_cast<int>(order_.size()); }
  // What comes from outside a microbatch must survive all microbatches.
  int extended(int time, ValueId value) const {
    if (phase_at(time) != Phase::kMicrobatch) return time;
    const NodeId producer = graph().value(value).producer;
    if (producer != kNoNode && phase_of(producer) == Phase::kMicrobatch) return time;
    return end_of_microbatch();
  }
  Phase phase_of(NodeId node) const {
    const auto place = std::find(order_.begin(), order_.end(), node);
    return phase_at(static_cast<int>(place - order_.begin()));
  }

  int new_slot(std::size_t bytes, int first, int last) {
    lifetimes_.push_back({bytes, first, std::max(first, last)});
    return static_cast<int>(lifetimes_.size() - 1);
  }

  std::size_t bytes_of(ValueId id) const {
    return stored_bytes(graph().type(id), graph().value(id).layout);
  }

  void make_steps() {
    for (const Input& input : graph().inputs) {
      // Batch inputs are written before each microbatch; step inputs before the prologue.
      const bool batch = input.kind == Input::Kind::kBatch;
      slot_[index(input.value)] = new_slot(bytes_of(input.value), batch ? begins_[1] : 0,
                                           batch ? last_use_[index(input.value)] : end());
    }
    for (int time = 0; time < end(); ++time) {
      const NodeId id = order_[static_cast<std::size_t>(time)];
      const Node& node = graph().node(id);
      if (node.op == "leaf_sum") continue;
      const Signature signature = signature_of(graph(), node);
      const KernelRule& rule = cpu::find_kernel_rule(node.op);
      for (std::size_t o = 0; o < node.outputs.size(); ++o) place_output(time, signature, rule, o);
      ProgramStep step{.node = id, .op = node.op, .layer = node.name};
      try {
        step.kernel = rule.make(signature, policy_);
      } catch (const Error& error) {
        fail("layer {} ({}): {}", node.name, node.op, error.what());
      }
      step.flops = cost_of(graph(), node).flops;
      for (const ValueId input : node.inputs) step.bytes += bytes_of(input);
      for (const ValueId output : node.outputs) step.bytes += bytes_of(output);
      const std::size_t scratchpad = step.kernel->scratchpad_bytes();
      scratchpads_.push_back(scratchpad == 0 ? kNoSlot : new_slot(scratchpad, time, time));
      steps_of(phase_at(time)).push_back(std::move(step));
    }
  }

  void place_output(int time, const Signature& signature, const KernelRule& rule, std::size_t o) {
    const Node& node = signature.node;
    const ValueId output = node.outputs[o];
    if (address_[index(output)]) return;  // a sum
    for (std::size_t i = 0; rule.in_place != nullptr && i < node.inputs.size(); ++i) {
      if (!rule.in_place(signature, o, i)) continue;
      if (take_state(time, output, node.inputs[i]) || take_slot(time, output, node.inputs[i]))
        return;
    }
    slot_[index(output)] = new_slot(bytes_of(output), time, last_use_[index(output)]);
  }

  // A next state is computed over its state where that is read for the last time here.
  bool take_state(int time, ValueId output, ValueId input) {
    if (phase_at(time) != Phase::kUpdate || last_use_[index(input)] > time) return false;
    for (const State& state : graph().states) {
      if (state.value != input || state.next != output) continue;
      address_[index(output)] = address_[index(input)];
      return true;
    }
    return false;
  }

  // An intermediate value is computed over an input that is read for the last time here. The input
  // must have been made in the same phase: a microbatch is repeated, what it reads from before is
  // not.
  bool take_slot(int time, ValueId output, ValueId input) {
    const int slot = slot_[index(input)];
    if (slot == kNoSlot || last_use_[index(input)] > time || bytes_of(input) < bytes_of(output)) {
      return false;
    }
    const NodeId producer = graph().value(input).producer;
    if (producer == kNoNode || phase_of(producer) != phase_at(time)) return false;
    for (const ValueId other : graph().node(order_[static_cast<std::size_t>(time)]).outputs) {
      if (slot_[index(other)] == slot) return false;  // taken by another output of this node
    }
    slot_[index(output)] = slot;
    Lifetime& life = lifetimes_[static_cast<std::size_t>(slot)];
    life.last = std::max(life.last, last_use_[index(output)]);
    return true;
  }

  std::vector<ProgramStep>& steps_of(Phase phase) {
    return phase == Phase::kPrologue     ? program_.prologue
           : phase == Phase::kMicrobatch ? program_.microbatch
                                         : program_.update;
  }

  void plan_arena() {
    const MemoryPlan plan = plan_memory(lifetimes_);
    program_.arena_bytes = plan.bytes;
    program_.arena_lower_bound = plan.lower_bound;
    const auto in_arena = [&](int slot) {
      return Address{Region::kArena, plan.offsets[static_cast<std::size_t>(slot)]};
    };
    for (std::size_t i = 0; i < address_.size(); ++i) {
      if (!address_[i] && slot_[i] != kNoSlot) address_[i] = in_arena(slot_[i]);
    }
    std::size_t next = 0;
    for (std::vector<ProgramStep>* steps :
         {&program_.prologue, &program_.microbatch, &program_.update}) {
      for (ProgramStep& step : *steps) {
        const Node& node = graph().node(step.node);
        for (const ValueId id : node.inputs) step.operands.push_back(*address_[index(id)]);
        for (const ValueId id : node.outputs) step.operands.push_back(*address_[index(id)]);
        const int scratchpad = scratchpads_[next++];
        if (scratchpad != kNoSlot) step.operands.push_back(in_arena(scratchpad));
      }
    }
  }

  Program finish() {
    for (const State& state : graph().states) {
      if (state.next == kNoValue || state.next == state.value) continue;
      const Address from = *address_[index(state.next)];
      const Address to = *address_[index(state.value)];
      if (from.region == to.region && from.offset == to.offset) continue;
      ProgramStep copy{.op = "copy", .layer = graph().value(state.value).name};
      copy.kernel = std::make_unique<Copy>(bytes_of(state.value));
      copy.operands = {from, to};
      copy.bytes = 2 * bytes_of(state.value);
      program_.update.push_back(std::move(copy));
    }
    for (const Input& input : graph().inputs) {
      const Value& value = graph().value(input.value);
      auto& list = input.kind == Input::Kind::kBatch ? program_.batch_inputs : program_.step_inputs;
      list.push_back({value.name, value.type, *address_[index(input.value)]});
    }
    for (const Output& output : graph().outputs) {
      program_.outputs.push_back(
          {output.name, graph().type(output.value), *address_[index(output.value)]});
    }
    return std::move(program_);
  }

  Program program_;
  KernelPolicy& policy_;
  const StateStore& states_;
  std::vector<NodeId> order_;
  std::array<int, 3> begins_{};                  // time at which each phase begins
  std::vector<std::optional<Address>> address_;  // by value, once known
  std::vector<int> slot_;                        // by value
  std::vector<int> last_use_;                    // by value
  std::vector<Lifetime> lifetimes_;              // by slot
  std::vector<int> scratchpads_;                 // slot of each step's scratchpad, in order
};

}  // namespace

Graph lower(const Graph& graph, KernelPolicy& policy, const PinnedLayouts& pinned,
            std::vector<PassRecord>* records) {
  const LayoutOracle oracle = [&](const Graph& g, const Node& node,
                                  std::span<const std::optional<Layout>> inputs) -> NodeLayouts {
    const KernelRule& rule = cpu::find_kernel_rule(node.op);
    if (rule.layouts == nullptr) {
      return {std::vector<Layout>(node.inputs.size()), std::vector<Layout>(node.outputs.size())};
    }
    LayoutWish wish = rule.layouts(signature_of(g, node), inputs, policy);
    return {std::move(wish.inputs), std::move(wish.outputs)};
  };
  return run_passes(graph,
                    {{"dead code", remove_dead_code},
                     {"fuse batch norm and relu", fuse_batch_norm_relu},
                     {"layout", [&](const Graph& g) { return assign_layouts(g, oracle, pinned); }}},
                    records);
}

Program compile(Graph lowered, KernelPolicy& policy, const StateStore& states) {
  return Compiler(std::move(lowered), policy, states).run();
}

}  // namespace concord

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <tuple>

#include "concord/base/error.h"
#include "concord/graph/op.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/ops/collective.h"
#include "concord/runtime/buckets.h"
#include "concord/runtime/node_order.h"
#include "concord/runtime/offload.h"
#include "concord/runtime/program.h"
#include "concord/runtime/slots.h"
#include "concord/runtime/state_store.h"
#include "concord/runtime/step_kinds.h"
#include "concord/tensor/relayout.h"

namespace concord {
namespace {

std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

// Gives every value an address. Vocabulary: a value's *storage* is the value whose memory it
// shares, itself unless it is a *view*; a *slot* is a piece of planned memory that one storage, or
// several that follow each other in place, occupy (slots.h); *time*, see node_order.h.
class Compiler {
 public:
  Compiler(Graph graph, KernelPolicy& policy, const StateStore& states,
           const CompileOptions& options)
      : program_{.graph = std::move(graph)},
        policy_(policy),
        states_(states),
        options_(options),
        order_(program_.graph,
               options.single_microbatch ? phases_of_single_microbatch(program_.graph)
                                         : phases(program_.graph),
               options.halves) {
    program_.in_rounds = options.in_rounds;
    program_.halves.resize(static_cast<std::size_t>(options.halves));
    sums_in_.resize(program_.halves.size());
    const std::size_t values = program_.graph.values.size();
    next_.assign(values, kNoValue);
    storage_.resize(values);
    address_.resize(values);
    offset_.resize(values);
    room_.resize(values);
    slot_.assign(values, kNoSlot);
    last_use_.assign(values, -1);
  }

  Program run() {
    place_states();
    find_views();
    place_sums();
    find_last_uses();
    make_steps();
    find_bucket_ends();
    if (options_.in_rounds) give_sums_slots();
    if (options_.offload_activations) offload_slots();
    choose_pools();
    plan();
    if (options_.in_rounds) move_sums_to_slots();
    bind_operands();
    copy_next_states();
    bind_names();
    schedule(program_.microbatch, planned_stays());
    schedule(program_.update, stays_of_states(program_));
    return std::move(program_);
  }

 private:
  static constexpr int kNoSlot = -1;

  // Of what a half computes and ranks sum.
  struct SumsInHalf {
    std::size_t places_bytes = 0;
    std::size_t scattered_bytes = 0;   // of those: the first
    std::vector<int> bucket_times;     // when each bucket is complete
    std::map<std::size_t, int> slots;  // in rounds, of what is scattered: by place
    std::size_t slotted_bytes = 0;
    std::size_t whole_bytes() const { return places_bytes - scattered_bytes; }
  };
  SumsInHalf& sums_in(int half) { return sums_in_[static_cast<std::size_t>(half)]; }

  const Graph& graph() const { return program_.graph; }

  const Node& node_at(int time) const { return graph().node(order_.node_at(time)); }
  ProgramHalf& half(int number) { return program_.halves[static_cast<std::size_t>(number)]; }

  ValueId storage(ValueId id) const { return storage_[index(id)]; }
  // Whether the memory of this value holds another value after the step.
  bool is_overwritten(ValueId id) const {
    const ValueId next = next_[index(storage(id))];
    return next != kNoValue && next != storage(id);
  }

  void place_states() {
    for (const State& state : graph().states) {
      if (!state.is_here()) continue;
      const Value& value = graph().value(state.value);
      const StateStore::Entry* entry = states_.find(value.name);
      CONCORD_CHECK(entry != nullptr && fits(*entry, state), "state \"{}\"", value.name);
      address_[index(state.value)] = {region_of(*entry), states_.offset_of(*entry, value.type)};
      if (!place_gathered(state)) next_[index(state.value)] = state.next;
    }
  }

  bool fits(const StateStore::Entry& entry, const State& state) const {
    const Value& value = graph().value(state.value);
    const bool is_part = state.flat && !state.flat->is_held_whole;
    const bool same_parts = is_part ? entry.flat == state.flat
                                    : entry.part == value.type && entry.layout == value.layout;
    return same_parts && (is_part || !entry.is_flat());
  }

  // A state of which the rank computes its part, and gets the others' (parallel/partition.h): all
  // of that happens where the state lies, since nobody reads what it was any more.
  bool place_gathered(const State& state) {
    if (!state.flat || !state.flat->is_held_whole || state.next == kNoValue) return false;
    const NodeId gather = graph().value(state.next).producer;
    if (state.next == state.value || gather == kNoNode) return false;
    Address own = *address_[index(state.value)];
    address_[index(state.next)] = own;
    own.offset += flat_offset(graph().node(gather));
    address_[index(graph().node(gather).inputs[0])] = own;
    return true;
  }

  // Of the rank's part, in bytes.
  std::size_t flat_offset(const Node& node) const {
    CONCORD_CHECK(ops::is_flat(node), "{} ({})", node.op, node.name);
    const std::int64_t first = node.attributes.integer("index") * node.attributes.integer("part");
    return static_cast<std::size_t>(first) * size_of(graph().type(node.inputs[0]).dtype);
  }

  // Nothing is run for a view. What a leaf_sum reads lies among the sums, so it is none; nor is
  // what is read after the step where that would be a state's memory.
  void find_views() {
    std::iota(storage_.begin(), storage_.end(), ValueId{0});
    std::vector<bool> summed(storage_.size()), read_after(storage_.size());
    for (const State& state : graph().states) {
      if (state.next != kNoValue) read_after[index(state.next)] = true;
    }
    for (const Output& output : graph().outputs) read_after[index(output.value)] = true;
    for (const Node& node : graph().nodes) {
      if (node.op == "leaf_sum") summed[index(node.inputs[0])] = true;
    }
    for (const Node& node : graph().nodes) {
      const bool is_part = node.op == ops::kShard && ops::is_flat(node);
      if (is_part) offset_[index(node.outputs[0])] = flat_offset(node);
      if (!is_part && (!has_kernel(node) || !cpu::find_kernel_rule(node.op).view)) continue;
      const ValueId input = node.inputs[0], output = node.outputs[0];
      if (is_part) {
        storage_[index(output)] = storage(input);
        std::size_t& room = room_[index(storage(input))];
        const auto ranks = static_cast<std::size_t>(node.attributes.integer("ranks"));
        room = std::max(room, ranks * graph().type(output).bytes());
        continue;
      }
      if (summed[index(output)] || (read_after[index(output)] && is_overwritten(input))) continue;
      storage_[index(output)] = storage(input);
    }
  }

  // The inputs and outputs of leaf_sum and all_reduce share an address: the region is summed over
  // leaves in place, and of a reduce_scatter the part is where it would lie in all of it. A value
  // that several leaf_sums read is summed once. First lie those of which each rank gets a part;
  // then, of both kinds, what is computed first, so that a bucket is one piece of memory.
  void place_sums() {
    std::vector<const Node*> sums;
    for (const Node& node : graph().nodes) {
      if (node.op == "leaf_sum") sums.push_back(&node);
      if (node.op != ops::kReduceScatter || !ops::is_of_leaf_sum(graph(), node)) continue;
      scatter_of_[graph().node(graph().value(node.inputs[0]).producer).inputs[0]] = &node;
    }
    std::vector<const Node*> in_order = sums;
    find_encodings();
    std::ranges::stable_sort(in_order, {}, [&](const Node* sum) {
      return std::tuple(half_of(*sum), !scatter_of_.contains(sum->inputs[0]),
                        kind_of_encoding(*sum), ready_time(*sum));
    });
    for (const Node* sum : in_order) place_sum(*sum);
    if (options_.like != nullptr) place_sums_like(sums, *options_.like);
    for (const Node* sum : sums) {
      const TensorType& type = graph().type(sum->inputs[0]);
      const Layout& layout = graph().value(sum->inputs[0]).layout;
      const Address address = *address_[index(sum->inputs[0])];
      address_[index(sum->outputs[0])] = address;
      program_.sums.push_back({.name = sum->name,
                               .half = half_of(*sum),
                               .type = type,
                               .stored_elements = layout.stored_elements(type.shape),
                               .place = address.offset,
                               .address = address,
                               .part_bytes = part_bytes(sum->inputs[0])});
      if (const auto found = encoding_of_.find(sum->inputs[0]); found != encoding_of_.end()) {
        program_.sums.back().encoding = found->second;
        program_.sums.back().part = {Region::kParts, address.offset, address.part};
        address_[index(graph().node(found->second.node).outputs[0])] = program_.sums.back().part;
      }
      program_.sums_layouts.push_back(layout);
    }
    for (const Node& node : graph().nodes) {
      if (node.op != ops::kAllReduce || !ops::is_of_leaf_sum(graph(), node)) continue;
      address_[index(node.outputs[0])] = address_[index(node.inputs[0])];
    }
    place_parts(sums);
    CONCORD_CHECK(options_.like == nullptr || program_.totals_bytes == options_.like->totals_bytes,
                  "programs of one step sum the same values");
    for (int h = 0; h < options_.halves; ++h) {
      half(h).buckets = choose_buckets(program_, h, options_.bucket_bytes);
    }
  }
  // What goes in different buckets.
  int kind_of_encoding(const Node& sum) const {
    const auto found = encoding_of_.find(sum.inputs[0]);
    return found == encoding_of_.end() ? 2 : found->second.rank > 0 ? 1 : 0;
  }
  // What encoders keep becomes what they keep where it lies.
  void find_encodings() {
    for (std::size_t n = 0; n < graph().nodes.size(); ++n) {
      const Node& node = graph().nodes[n];
      if (node.op != ops::kEncodedSum) continue;
      CONCORD_CHECK(!options_.in_rounds, "encoded sums of rounds");
      SumEncoding encoding{.node = static_cast<NodeId>(n),
                           .rank = static_cast<int>(node.attributes.integer("rank"))};
      const auto memories = static_cast<std::size_t>(node.attributes.integer("memories"));
      for (std::size_t i = 1; i < node.inputs.size(); ++i) {
        address_[index(node.outputs[i])] = address_[index(node.inputs[i])];
        (i <= memories ? encoding.memories : encoding.sum_memories)
            .push_back(*address_[index(node.inputs[i])]);
      }
      const NodeId sum = graph().value(node.inputs[0]).producer;
      encoding_of_[graph().node(sum).inputs[0]] = std::move(encoding);
    }
  }
  // In the order of the sums' places; where they are among the sums, or behind those that the rank
  // gets all of.
  void place_parts(const std::vector<const Node*>& sums) {
    for (int h = 0; h < options_.halves; ++h) {
      half(h).sums_bytes = sums_in(h).places_bytes;
      sums_in(h).scattered_bytes = sums_in(h).places_bytes;
      program_.sums_bytes += half(h).sums_bytes;
    }
    std::map<std::pair<int, std::size_t>, std::size_t> part_at;  // by half and place
    for (const Sum& sum : program_.sums) {
      std::size_t& scattered = sums_in(sum.half).scattered_bytes;
      if (sum.part_bytes == 0) scattered = std::min(scattered, sum.place);
      if (sum.part_bytes > 0) part_at[{sum.half, sum.place}] = sum.part_bytes;
    }
    for (int h = 0; h < options_.halves; ++h) half(h).totals_bytes = sums_in(h).whole_bytes();
    for (auto& [place, at] : part_at) {
      const std::size_t bytes = at;
      at = half(place.first).totals_bytes;
      half(place.first).totals_bytes += bytes;
    }
    for (const ProgramHalf& half : program_.halves) program_.totals_bytes += half.totals_bytes;
    for (std::size_t s = 0; s < sums.size(); ++s) {
      const auto found = scatter_of_.find(sums[s]->inputs[0]);
      if (found == scatter_of_.end()) continue;
      Sum& sum = program_.sums[s];
      const Node& scatter = *found->second;
      sum.part = {
          Region::kParts,
          options_.in_rounds ? part_at.at({sum.half, sum.place}) : sum.place + flat_offset(scatter),
          sum.half};
      address_[index(scatter.outputs[0])] = sum.part;
    }
  }
  // Of what a leaf_sum reads, the bytes of each rank's part of the sum; 0 where all get all of it.
  std::size_t part_bytes(ValueId summand) const {
    const auto found = scatter_of_.find(summand);
    if (found == scatter_of_.end()) return 0;
    return graph().type(found->second->outputs[0]).bytes();
  }
  void place_sum(const Node& sum) {
    const ValueId input = sum.inputs[0];
    CONCORD_CHECK(graph().type(input).dtype == DType::kF32, "leaves are summed in f32");
    if (address_[index(input)]) return;
    std::size_t& end = sums_in(half_of(sum)).places_bytes;
    address_[index(input)] = {Region::kSums, end, half_of(sum)};
    end += scatter_of_.contains(input) ? scattered_bytes(sum) : aligned(bytes_of(input));
  }
  static std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }
  // Of the parts of all ranks.
  std::size_t scattered_bytes(const Node& sum) const {
    const Node& scatter = *scatter_of_.at(sum.inputs[0]);
    return part_bytes(sum.inputs[0]) *
           static_cast<std::size_t>(scatter.attributes.integer("ranks"));
  }
  void place_sums_like(const std::vector<const Node*>& sums, const Program& like) {
    CONCORD_CHECK(sums.size() == like.sums.size() && options_.in_rounds == like.in_rounds,
                  "programs of one step sum the same values");
    for (std::size_t i = 0; i < sums.size(); ++i) {
      address_[index(sums[i]->inputs[0])] = {Region::kSums, like.sums[i].place, like.sums[i].half};
    }
  }
  // When what is summed is computed, and in which half.
  int ready_time(const Node& sum) const {
    const NodeId producer = graph().value(sum.inputs[0]).producer;
    return producer == kNoNode ? -1 : order_.time_of(producer);
  }
  int half_of(const Node& sum) const {
    return order_.half_at(std::max(ready_time(sum), order_.begin_of_microbatch()));
  }

  void find_last_uses() {
    for (int time = 0; time < order_.end(); ++time) {
      for (const ValueId input : node_at(time).inputs) last_use_[index(storage(input))] = time;
    }
    // What is sent may be on its way until the half is run for another microbatch.
    for (int time = 0; time < order_.end(); ++time) {
      if (node_at(time).op != ops::kSend) continue;
      int& last = last_use_[index(storage(node_at(time).inputs[0]))];
      last = std::max(last, order_.phase_at(time) == Phase::kMicrobatch
                                ? order_.end_of_half(order_.half_at(time))
                                : order_.end());
    }
    // Outputs and next states are read after the last step.
    for (const Output& output : graph().outputs)
      last_use_[index(storage(output.value))] = order_.end();
    for (const State& state : graph().states) {
      if (state.next != kNoValue) last_use_[index(storage(state.next))] = order_.end();
    }
  }

  // Of what the node computes. The prologue has memory of its own: it lives on when another program
  // runs.
  int new_slot(std::size_t bytes, int time, int last) {
    const Region region =
        order_.phase_at(time) == Phase::kPrologue ? Region::kPrologue : Region::kArena;
    return slots_.add(region, bytes, time, last);
  }

  std::size_t bytes_of(ValueId id) const {
    return stored_bytes(graph().type(id), graph().value(id).layout);
  }

  void make_steps() {
    for (const Input& input : graph().inputs) {
      // Batch inputs are written before each microbatch; step inputs before the prologue.
      if (input.kind == Input::Kind::kBatch) {
        const int last = std::max(last_use_[index(input.value)], order_.begin_of_microbatch());
        const int stays =
            last > order_.end_of_microbatch() ? last : order_.end_of_half(order_.half_at(last));
        slot_[index(input.value)] =
            slots_.add(Region::kArena, bytes_of(input.value), order_.begin_of_microbatch(), stays);
      } else {
        slot_[index(input.value)] =
            slots_.add(Region::kPrologue, bytes_of(input.value), 0, order_.end());
      }
    }
    for (int time = 0; time < order_.end(); ++time) {
      if (order_.begins_part(time)) {
        begun_.clear();  // all are done then
      }
      const Node& node = node_at(time);
      if (ops::is_collective(node.op) && !ops::is_of_leaf_sum(graph(), node) &&
          !is_in_common(node)) {
        make_collective(time, node);
      }
      if (ops::is_message(node.op)) make_message(time, node);
      if (!has_kernel(node) || storage(node.outputs[0]) != node.outputs[0]) continue;
      make_step(time, node);
    }
  }

  // All ranks write their parts to one place.
  bool is_in_common(const Node& node) const {
    const std::optional<Address>& address = address_[index(node.outputs[0])];
    return address && address->region == Region::kCommonStates;
  }

  void make_collective(int time, const Node& node) {
    const ValueId output = node.outputs[0];
    CollectiveStep collective = make_collective_step(graph(), node);
    if (!address_[index(output)]) {
      const std::size_t bytes = std::max(bytes_of(output), collective.out_bytes());
      slot_[index(output)] = new_slot(bytes, time, last_use_[index(output)]);
    }
    note_inputs(time, node);
    ProgramStep step{.node = order_.node_at(time),
                     .op = fmt::format("{} ({})", node.op, collective.axis),
                     .layer = node.name,
                     .bytes = bytes_of(node.inputs[0]) + bytes_of(output)};
    add_scratchpad(collective.scratch_bytes(), time);
    step.awaits = awaited_by(node);
    if (ops::is_flat(node)) {  // a gather: the steps until its first reader go on
      step.goes_on = true;
      begun_.emplace(output, begun_.size() + 1);
    }
    step.collective = std::move(collective);
    steps_of(order_.phase_at(time)).push_back(std::move(step));
  }

  // What is received lies where it is awaited from before on; the next value of a state, which
  // nobody reads any more, in that one's place.
  void make_message(int time, const Node& node) {
    MessageStep message = make_message_step(node);
    const ValueId value = message.is_send ? node.inputs[0] : node.outputs[0];
    message.bytes = bytes_of(value);
    if (message.is_send) {
      sent_.insert(storage(value));
      CONCORD_CHECK(!received_.contains(slot_[index(storage(value))]), "{} is passed on",
                    node.name);
    } else if (const auto state = std::ranges::find(graph().states, value, &State::next);
               state != graph().states.end()) {
      address_[index(value)] = address_[index(state->value)];
    } else if (!address_[index(value)]) {  // else it is a part of a state's
      const int last = last_use_[index(value)];
      slot_[index(value)] =
          new_slot(message.bytes, order_.begin_of_half(order_.half_at(time)), last);
      received_.insert(slot_[index(value)]);
    }
    scratchpads_.push_back(kNoSlot);
    ProgramStep step{.node = order_.node_at(time), .layer = node.name};
    step.op = fmt::format("{} ({})", node.op, message.axis);
    step.bytes = message.bytes;
    step.awaits = awaited_by(node);
    step.message = std::move(message);
    steps_of(order_.phase_at(time)).push_back(std::move(step));
  }

  // How many of the collectives that go on have to be done before it is run.
  std::size_t awaited_by(const Node& node) const {
    std::size_t awaits = 0;
    for (const ValueId input : node.inputs) {
      const auto found = begun_.find(storage(input));
      if (found != begun_.end()) awaits = std::max(awaits, found->second);
    }
    return awaits;
  }

  void make_step(int time, const Node& node) {
    const Signature signature = signature_of(graph(), node);
    const KernelRule& rule = cpu::find_kernel_rule(node.op);
    for (std::size_t o = 0; o < node.outputs.size(); ++o) place_output(time, signature, rule, o);
    note_inputs(time, node);
    ProgramStep step{.node = order_.node_at(time), .op = node.op, .layer = node.name};
    try {
      step.kernel = rule.make(signature, policy_);
    } catch (const Error& error) {
      fail("layer {} ({}): {}", node.name, node.op, error.what());
    }
    step.awaits = awaited_by(node);
    step.flops = cost_of(graph(), node).flops;
    for (const ValueId input : node.inputs) step.bytes += bytes_of(input);
    for (const ValueId output : node.outputs) step.bytes += bytes_of(output);
    add_scratchpad(step.kernel->scratchpad_bytes(), time);
    steps_of(order_.phase_at(time)).push_back(std::move(step));
  }

  void note_inputs(int time, const Node& node) {
    if (order_.phase_at(time) == Phase::kPrologue && reads_inputs(node)) {
      program_.prologue_reads_step_inputs = true;
    }
  }
  void add_scratchpad(std::size_t bytes, int time) {
    scratchpads_.push_back(bytes == 0 ? kNoSlot : new_slot(bytes, time, time));
  }

  // States have an address, inputs a slot.
  bool reads_inputs(const Node& node) const {
    return std::ranges::any_of(node.inputs, [&](ValueId id) {
      return slot_[index(storage(id))] != kNoSlot && graph().value(storage(id)).producer == kNoNode;
    });
  }

  void place_output(int time, const Signature& signature, const KernelRule& rule, std::size_t o) {
    const Node& node = signature.node;
    const ValueId output = node.outputs[o];
    if (address_[index(output)]) return;  // a sum, or a state in common
    for (std::size_t i = 0; rule.in_place != nullptr && i < node.inputs.size(); ++i) {
      if (!rule.in_place(signature, o, i) || !is_read_last(time, node.inputs[i])) continue;
      if (take_state(time, output, node.inputs[i]) || take_slot(time, output, node.inputs[i]))
        return;
    }
    slot_[index(output)] = new_slot(room_of(output), time, last_use_[index(output)]);
  }

  // The last of the parts that ranks read of a value may end behind it.
  std::size_t room_of(ValueId id) const { return std::max(bytes_of(id), room_[index(id)]); }

  // Whether nothing else reads the input's memory from here on, neither a later node nor this one.
  bool is_read_last(int time, ValueId input) const {
    const auto lies_there = [&](ValueId other) { return storage(other) == storage(input); };
    return last_use_[index(storage(input))] <= time &&
           std::ranges::count_if(node_at(time).inputs, lies_there) == 1;
  }

  // A next state is computed over its state.
  bool take_state(int time, ValueId output, ValueId input) {
    const ValueId state = storage(input);
    if (order_.phase_at(time) != Phase::kUpdate || next_[index(state)] != output) return false;
    address_[index(output)] = address_[index(state)];
    return true;
  }

  // An intermediate value is computed over an input that was made in the same phase: a microbatch
  // is repeated, what it reads from before is not. Inputs of the graph are only read.
  bool take_slot(int time, ValueId output, ValueId input) {
    const ValueId source = storage(input);
    const int slot = slot_[index(source)];
    if (slot == kNoSlot || bytes_of(source) < room_of(output)) return false;
    // The next message may come there as soon as this one has been read.
    if (received_.contains(slot)) return false;
    const NodeId producer = graph().value(source).producer;
    if (producer == kNoNode || order_.phase_of(producer) != order_.phase_at(time)) {
      return false;
    }
    for (const ValueId other : node_at(time).outputs) {
      if (slot_[index(other)] == slot) return false;  // taken by another output of this node
    }
    slot_[index(output)] = slot;
    Lifetime& life = slots_[slot].life;
    life.last = std::max(life.last, last_use_[index(output)]);
    return true;
  }

  std::vector<ProgramStep>& steps_of(Phase phase) {
    return phase == Phase::kPrologue     ? program_.prologue
           : phase == Phase::kMicrobatch ? program_.microbatch
                                         : program_.update;
  }

  // What a microbatch computes and long does not use. Inputs are written from outside, and what
  // collectives read and write may have to lie where other ranks see it.
  void offload_slots() {
    std::map<int, std::vector<std::size_t>> uses;  // by slot: steps
    std::set<int> stay_resident;
    for (const Input& input : graph().inputs) stay_resident.insert(slot_[index(input.value)]);
    for (std::size_t s = 0; s < program_.microbatch.size(); ++s) {
      const ProgramStep& step = program_.microbatch[s];
      for (const ValueId id : values_of(program_, step)) {
        const int slot = slot_[index(storage(id))];
        uses[slot].push_back(s);
        if (step.collective) stay_resident.insert(slot);
      }
    }
    for (const auto& [number, steps] : uses) {
      if (number == kNoSlot || stay_resident.contains(number)) continue;
      Slot& slot = slots_[number];
      if (slot.region != Region::kArena || slot.life.last > order_.end_of_microbatch()) continue;
      std::vector<OffloadedStay> stays =
          stays_of_activation(program_.microbatch, steps, slot.life.bytes);
      if (stays.size() == 1) continue;
      slot.region = Region::kOffloadedArena;
      slot.life.bytes = (slot.life.bytes + kOffloadedPiece - 1) / kOffloadedPiece * kOffloadedPiece;
      stays_[number] = std::move(stays);
    }
  }

  // What lives from one half of a microbatch to another, or is on its way to a half or from one,
  // has memory for each microbatch for which that may be so at once.
  void choose_pools() {
    const auto is_sent = [&](int slot) {
      return std::ranges::count(sent_, slot, [&](ValueId id) { return slot_[index(id)]; }) > 0;
    };
    for (int number = 0; number < slots_.size(); ++number) {
      Slot& slot = slots_[number];
      const bool is_of_microbatch = slot.life.first >= order_.begin_of_microbatch() &&
                                    slot.life.first <= order_.end_of_microbatch();
      if (slot.region != Region::kArena || !is_of_microbatch) continue;
      Pool pool{.first = order_.half_at(slot.life.first),
                .last = order_.half_at(std::min(slot.life.last, order_.end_of_microbatch())),
                .is_received = received_.contains(number),
                .is_sent = is_sent(number)};
      if (pool.first == pool.last && !pool.is_received && !pool.is_sent) continue;
      if (pool.is_received) slot.life.first = order_.begin_of_microbatch();
      if (pool.is_sent) slot.life.last = order_.end_of_microbatch();
      const auto found = std::ranges::find_if(
          program_.pools, [&](const Pool& other) { return other.holds_like(pool); });
      slot.region = Region::kCarried;
      slot.part = static_cast<int>(found - program_.pools.begin());
      if (found == program_.pools.end()) program_.pools.push_back(pool);
    }
  }

  std::vector<OffloadedStay> planned_stays() const {
    std::vector<OffloadedStay> planned;
    for (const auto& [slot, stays] : stays_) {
      for (OffloadedStay stay : stays) {
        stay.range.address = slots_.address(slot);
        planned.push_back(stay);
      }
    }
    return planned;
  }

  void plan() {
    program_.prologue_bytes = slots_.plan(Region::kPrologue).bytes;
    const MemoryPlan arena = slots_.plan(Region::kArena);
    program_.arena_bytes = arena.bytes;
    program_.arena_lower_bound = arena.lower_bound;
    for (int h = 0; h < options_.halves; ++h) {
      sums_in(h).slotted_bytes = slots_.plan(Region::kSums, h).bytes;
    }
    program_.offloaded_arena_bytes = slots_.plan(Region::kOffloadedArena).bytes;
    for (std::size_t p = 0; p < program_.pools.size(); ++p) {
      program_.pools[p].bytes = slots_.plan(Region::kCarried, static_cast<int>(p)).bytes;
    }
  }

  Address address_of(ValueId id) const {
    const ValueId value = storage(id);
    Address address =
        address_[index(value)] ? *address_[index(value)] : slots_.address(slot_[index(value)]);
    if (value != id) address.offset += offset_[index(id)];
    return address;
  }
  void bind_operands() {
    auto scratchpad = scratchpads_.begin();
    for (std::vector<ProgramStep>* steps :
         {&program_.prologue, &program_.microbatch, &program_.update}) {
      for (ProgramStep& step : *steps) {
        const Node& node = graph().node(step.node);
        const std::size_t read = step.message      ? (step.message->is_send ? 1 : 0)
                                 : step.collective ? 1
                                                   : node.inputs.size();
        for (const ValueId id : std::span(node.inputs).first(read)) {
          step.operands.push_back(address_of(id));
        }
        for (const ValueId id : node.outputs) step.operands.push_back(address_of(id));
        if (*scratchpad != kNoSlot) step.operands.push_back(slots_.address(*scratchpad));
        ++scratchpad;
      }
    }
  }

  // The copies may run in any order: none reads what another writes.
  void copy_next_states() {
    for (const State& state : graph().states) {
      if (!is_overwritten(state.value)) continue;
      const Address from = address_of(state.next), to = address_of(state.value);
      if (from == to) continue;
      CONCORD_CHECK(!is_overwritten(state.next), "the next value of state \"{}\"",
                    graph().value(state.value).name);
      ProgramStep copy{.op = "copy", .layer = graph().value(state.value).name};
      copy.kernel = copy_of(bytes_of(state.value));
      copy.operands = {from, to};
      copy.bytes = 2 * bytes_of(state.value);
      program_.update.push_back(std::move(copy));
    }
  }

  // A bucket is complete when what lies in it is computed, and read where the microbatch itself
  // goes on with it: ranks add up in place.
  void find_bucket_ends() {
    std::map<int, std::size_t> steps_at;  // how many steps of a microbatch are done then
    for (std::size_t s = 0; s < program_.microbatch.size(); ++s) {
      steps_at[order_.time_of(program_.microbatch[s].node)] = s + 1;
    }
    for (int h = 0; h < options_.halves; ++h) {
      const auto steps_before = [&](int time) {
        const auto after = steps_at.upper_bound(time);
        return after == steps_at.begin() ? 0 : std::prev(after)->second;
      };
      half(h).end = steps_before(order_.end_of_half(h));
      int ready = order_.begin_of_half(h);
      for (const Bucket& bucket : half(h).buckets) {
        for (int time = order_.begin_of_microbatch(); time <= order_.end_of_microbatch(); ++time) {
          if (touches(node_at(time), h, bucket)) ready = std::max(ready, time);
        }
        sums_in(h).bucket_times.push_back(ready);
        half(h).bucket_ends.push_back(steps_before(ready));
      }
    }
  }
  bool touches(const Node& node, int half, const Bucket& bucket) const {
    const auto lies_there = [&](ValueId id) {
      const std::optional<Address>& address = address_[index(storage(id))];
      return address && address->region == Region::kSums && address->part == half &&
             address->offset >= bucket.offset && address->offset < bucket.offset + bucket.bytes;
    };
    return std::ranges::any_of(node.outputs, lies_there) ||
           std::ranges::any_of(node.inputs, lies_there);
  }

  // In rounds (round_sums.h) what is scattered needs memory from where it is computed until its
  // bucket has been summed, which is waited for when the next one is ready.
  void give_sums_slots() {
    std::size_t s = 0;
    for (const Node& node : graph().nodes) {
      if (node.op != "leaf_sum") continue;
      const Sum& sum = program_.sums[s++];
      SumsInHalf& sums = sums_in(sum.half);
      if (sum.part_bytes == 0 || sums.slots.contains(sum.place)) continue;
      const std::vector<Bucket>& buckets = half(sum.half).buckets;
      std::size_t b = 0;
      while (sum.place >= buckets[b].offset + buckets[b].bytes) ++b;
      const int slot = slots_.add(
          Region::kSums, scattered_bytes(node),
          std::max(ready_time(node), order_.begin_of_microbatch()),
          b + 1 == buckets.size() ? order_.end_of_half(sum.half) : sums.bucket_times[b + 1]);
      slots_[slot].part = sum.half;
      sums.slots[sum.place] = slot;
    }
  }

  // Behind what the rank gets all of; in a program like another where they are in that one, since
  // other ranks may run it meanwhile.
  void move_sums_to_slots() {
    program_.sums_bytes = 0;
    for (int h = 0; h < options_.halves; ++h) {
      move_sums_to_slots(h);
      program_.sums_bytes += half(h).sums_bytes;
    }
  }
  void move_sums_to_slots(int h) {
    const SumsInHalf& sums = sums_in(h);
    std::map<std::size_t, std::size_t> slot_at;  // by place
    for (const auto& [place, slot] : sums.slots) {
      slot_at[place] = sums.whole_bytes() + slots_[slot].offset;
    }
    half(h).sums_bytes = sums.whole_bytes() + sums.slotted_bytes;
    if (options_.like != nullptr) {
      for (const Sum& sum : options_.like->sums) {
        if (sum.half == h && sum.part_bytes > 0) slot_at[sum.place] = sum.address.offset;
      }
      half(h).sums_bytes = options_.like->halves[static_cast<std::size_t>(h)].sums_bytes;
      check_slots(sums, slot_at);
    }
    const auto moved = [&](std::size_t place) {
      return place < sums.scattered_bytes ? slot_at.at(place) : place - sums.scattered_bytes;
    };
    for (std::optional<Address>& address : address_) {
      const bool lies_there = address && address->region == Region::kSums && address->part == h;
      if (lies_there) address->offset = moved(address->offset);
    }
    for (Sum& sum : program_.sums) {
      if (sum.half == h) sum.address.offset = moved(sum.place);
    }
    for (Bucket& bucket : half(h).buckets) {
      bucket.offset = moved(bucket.offset);
      for (comm::Piece& piece : bucket.pieces) piece.offset = moved(piece.offset);
    }
  }
  // Graphs of other sizes compute what is summed in the same order.
  void check_slots(const SumsInHalf& sums,
                   const std::map<std::size_t, std::size_t>& slot_at) const {
    std::vector<Lifetime> lives;
    std::vector<std::size_t> offsets;
    for (const auto& [place, slot] : sums.slots) {
      lives.push_back(slots_[slot].life);
      offsets.push_back(slot_at.at(place));
    }
    CONCORD_CHECK(lie_apart(lives, offsets), "sums of one program overlap in another");
  }

  void bind_names() {
    for (const Input& input : graph().inputs) {
      const Value& value = graph().value(input.value);
      auto& list = input.kind == Input::Kind::kBatch ? program_.batch_inputs : program_.step_inputs;
      list.push_back({value.name, value.type, address_of(input.value)});
    }
    for (const Output& output : graph().outputs) {
      program_.outputs.push_back(
          {output.name, graph().type(output.value), address_of(output.value)});
    }
  }

  Program program_;
  KernelPolicy& policy_;
  const StateStore& states_;
  const CompileOptions& options_;
  NodeOrder order_;
  std::vector<ValueId> next_;                    // by value: of states, what they become
  std::vector<std::size_t> offset_;              // by value: of a flat part, in its storage
  std::vector<std::size_t> room_;                // by storage: bytes of the parts of all ranks
  std::map<ValueId, const Node*> scatter_of_;    // by what a leaf_sum reads
  std::map<ValueId, SumEncoding> encoding_of_;   // likewise
  std::vector<SumsInHalf> sums_in_;              // by half
  std::vector<ValueId> storage_;                 // by value
  std::vector<std::optional<Address>> address_;  // by value: of states and sums
  std::vector<int> slot_;                        // by value: of other storages
  std::vector<int> last_use_;                    // by storage
  // Outputs of collectives that go on, and which of the phase's, or of the half's, they are.
  std::map<ValueId, std::size_t> begun_;
  Slots slots_;
  std::set<int> received_;                           // slots of what other ranks send
  std::set<ValueId> sent_;                           // storages of what this one sends
  std::vector<int> scratchpads_;                     // slot of each step's scratchpad, in order
  std::map<int, std::vector<OffloadedStay>> stays_;  // by slot: of those that are offloaded
};

}  // namespace

Program compile(Graph lowered, KernelPolicy& policy, const StateStore& states,
                const CompileOptions& options) {
  return Compiler(std::move(lowered), policy, states, options).run();
}

}  // namespace concord

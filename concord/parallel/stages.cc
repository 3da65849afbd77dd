#include "concord/parallel/stages.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "concord/base/error.h"
#include "concord/base/exact_sum.h"
#include "concord/graph/builder.h"
#include "concord/graph/op.h"
#include "concord/ops/collective.h"
#include "concord/ops/optimizer.h"
#include "concord/ops/shape_ops.h"
#include "concord/ops/step.h"
#include "concord/parallel/stage_assignment.h"

namespace concord::parallel {
namespace {

std::size_t at(ValueId id) { return static_cast<std::size_t>(id); }

// A value on its way to another rank.
struct Crossing {
  ValueId value;
  int to;    // rank
  int half;  // of that rank, which reads it first
  std::int64_t number = 0;
};

class Cutter {
 public:
  Cutter(const Graph& source, Plan& plan, int rank, const StageTimer& timer)
      : source_(source),
        plan_(plan),
        own_(plan.mesh.coordinate(rank, kPipeAxis)),
        ranks_(plan.mesh.extent(kPipeAxis)),
        assignment_(assign_stages(source, plan, timer)) {
    find_crossings();
  }

  Graph run() {
    copy_states();
    now_.assign(source_.values.size(), kNoValue);
    for (std::size_t s = 0; s < source_.states.size(); ++s) {
      now_[at(source_.states[s].value)] = graph_.states[s].value;
    }
    batch_input_ = smallest_batch_input();
    const int halves = static_cast<int>(halves_of(plan_).size());
    for (half_ = 0; half_ < halves; ++half_) copy_half();
    copy_update();
    copy_outputs();
    return std::move(graph_);
  }

 private:
  int node_place(NodeId node) const { return assignment_.place[static_cast<std::size_t>(node)]; }
  int node_half(NodeId node) const { return assignment_.half[static_cast<std::size_t>(node)]; }
  Phase node_phase(NodeId node) const { return assignment_.phase[static_cast<std::size_t>(node)]; }
  int rank_at(int place) const { return assignment_.rank_of_stage(assignment_.stage_at(place)); }
  static bool is_gather(const Node& node) {
    return node.op == ops::kAllGather && ops::is_flat(node);
  }
  bool is_local(NodeId node) const {
    return node_place(node) >= 0 && rank_at(node_place(node)) == own_;
  }
  bool flows(NodeId node) const {
    return node_phase(node) == Phase::kMicrobatch && node_place(node) >= 0;
  }

  // In the order in which they are made.
  void find_crossings() {
    std::map<std::pair<ValueId, int>, int> first_half;  // by value and reader
    for (std::size_t n = 0; n < source_.nodes.size(); ++n) {
      const auto node = static_cast<NodeId>(n);
      if (!flows(node)) continue;
      for (const ValueId input : source_.nodes[n].inputs) {
        const NodeId producer = source_.value(input).producer;
        if (producer == kNoNode || !flows(producer)) continue;
        const int to = rank_at(node_place(node));
        if (to == rank_at(node_place(producer))) continue;
        const int half = node_half(node);
        const auto [found, is_new] = first_half.try_emplace({input, to}, half);
        found->second = std::min(found->second, half);
      }
    }
    for (const auto& [key, half] : first_half) crossings_.push_back({key.first, key.second, half});
    std::ranges::stable_sort(crossings_, {}, [&](const Crossing& crossing) {
      const NodeId producer = source_.value(crossing.value).producer;
      return std::pair(node_place(producer), crossing.value);
    });
    std::set<Stream> streams(plan_.streams.begin(), plan_.streams.end());
    for (std::size_t i = 0; i < crossings_.size(); ++i) {
      crossings_[i].number = static_cast<std::int64_t>(i);
      streams.insert(stream_of(crossings_[i]));
    }
    for (const auto& [name, stages] : plan_.stages) {
      if (plan_.everywhere.contains(name)) continue;
      for (const int stage : stages) {
        const Stream stream{"states", rank_of(stages[0]), rank_of(stage)};
        if (stream.from != stream.to) streams.insert(stream);
      }
    }
    plan_.streams.assign(streams.begin(), streams.end());
  }
  int rank_of(int stage) const { return assignment_.rank_of_stage(stage); }
  int sender_half(const Crossing& crossing) const {
    return node_half(source_.value(crossing.value).producer);
  }
  Stream stream_of(const Crossing& crossing) const {
    const NodeId producer = source_.value(crossing.value).producer;
    const Half half = halves_of(plan_)[static_cast<std::size_t>(node_half(producer))].first;
    return {half == Half::kForward    ? "forward"
            : half == Half::kBackward ? "backward"
                                      : "weights",
            rank_at(node_place(producer)), crossing.to};
  }

  void copy_states() {
    for (State state : source_.states) {
      const Value value = source_.value(state.value);
      graph_.values.push_back(value);
      state.value = static_cast<ValueId>(graph_.values.size() - 1);
      state.next = kNoValue;
      if (!plan_.everywhere.contains(value.name)) {
        Holders holders{std::string(kPipeAxis), {}, own_};
        for (const int stage : plan_.stages.at(value.name)) {
          if (!holders.has(rank_of(stage))) holders.ranks.push_back(rank_of(stage));
        }
        state.holders = std::move(holders);
      }
      graph_.states.push_back(std::move(state));
    }
  }

  ValueId smallest_batch_input() const {
    ValueId smallest = kNoValue;
    for (const Input& input : source_.inputs) {
      if (input.kind != Input::Kind::kBatch) continue;
      if (smallest == kNoValue ||
          source_.type(input.value).bytes() < source_.type(smallest).bytes()) {
        smallest = input.value;
      }
    }
    return smallest;
  }

  ValueId add_value(const Value& like, NodeId producer) {
    graph_.values.push_back(like);
    graph_.values.back().producer = producer;
    return static_cast<ValueId>(graph_.values.size() - 1);
  }
  std::vector<ValueId> add(Node node, const std::vector<Value>& outputs) {
    node.outputs.clear();
    const auto id = static_cast<NodeId>(graph_.nodes.size());
    for (const Value& output : outputs) node.outputs.push_back(add_value(output, id));
    graph_.nodes.push_back(std::move(node));
    return graph_.nodes.back().outputs;
  }

  // The value on this rank, made now where it is not there yet.
  ValueId now(ValueId old_value) {
    ValueId& known = now_[at(old_value)];
    if (known != kNoValue) return known;
    const NodeId producer = source_.value(old_value).producer;
    if (producer == kNoNode) {
      const auto input = std::ranges::find(source_.inputs, old_value, &Input::value);
      CONCORD_CHECK(input != source_.inputs.end());
      graph_.inputs.push_back({add_value(source_.value(old_value), kNoNode), input->kind});
      return now_[at(old_value)] = graph_.inputs.back().value;
    }
    if (flows(producer)) return receive(old_value);
    copy(producer);
    return now_[at(old_value)];
  }

  void copy(NodeId old_node) {
    Node node = source_.node(old_node);
    const bool is_of_microbatch = node_phase(old_node) == Phase::kMicrobatch;
    // What only says when a gather runs may be any input.
    if (is_of_microbatch && is_gather(node) && node.inputs.size() > 1) {
      node.inputs[1] = batch_input_;
    }
    for (ValueId& input : node.inputs) input = now(input);
    node.half = is_of_microbatch ? half_ : 0;
    std::vector<Value> outputs;
    for (const ValueId output : source_.node(old_node).outputs) {
      outputs.push_back(source_.value(output));
    }
    if (node.op == "leaf_sum") {
      const auto copied = summed_copies_.find(source_.node(old_node).inputs[0]);
      if (copied != summed_copies_.end()) node.inputs[0] = copied->second;
    }
    const std::vector<ValueId> ids = add(std::move(node), outputs);
    for (std::size_t o = 0; o < ids.size(); ++o) {
      const ValueId old_output = source_.node(old_node).outputs[o];
      now_[at(old_output)] = ids[o];
      if (is_of_microbatch) copy_for_sum(old_output);
      const bool is_of_weights = is_of_microbatch &&
                                 node_place(old_node) == StageAssignment::kAnywhere &&
                                 !assignment_.reads_data[static_cast<std::size_t>(old_node)];
      if (is_of_weights) of_half_.push_back(old_output);
    }
  }

  // What is summed lies among the sums, where the next microbatch writes: another half reads it
  // elsewhere.
  void copy_for_sum(ValueId old_value) {
    bool is_summed = false, is_read_later = false;
    for (std::size_t n = 0; n < source_.nodes.size(); ++n) {
      const Node& node = source_.nodes[n];
      if (std::ranges::count(node.inputs, old_value) == 0) continue;
      if (node.op == "leaf_sum") {
        is_summed = true;
      } else if (flows(static_cast<NodeId>(n))) {
        const auto reader = static_cast<NodeId>(n);
        is_read_later = is_read_later || !is_local(reader) || node_half(reader) != half_;
      }
    }
    if (!is_summed || !is_read_later) return;
    const Value& value = source_.value(old_value);
    Node copy{.op = "reshape",
              .inputs = {now_[at(old_value)]},
              .outputs = {},
              .attributes = {{"shape", value.type.shape.dims()}},
              .name = source_.node(value.producer).name,
              .half = half_};
    summed_copies_[old_value] = add(std::move(copy), {value})[0];
  }

  const Crossing& crossing_of(ValueId old_value, int to) const {
    const auto found = std::ranges::find_if(crossings_, [&](const Crossing& crossing) {
      return crossing.value == old_value && crossing.to == to;
    });
    CONCORD_CHECK(found != crossings_.end(), "value %{} comes to no other rank", old_value);
    return *found;
  }

  ValueId receive(ValueId old_value) {
    const Crossing& crossing = crossing_of(old_value, own_);
    const Stream stream = stream_of(crossing);
    const Value& value = source_.value(old_value);
    Node node{.op = std::string(ops::kReceive),
              .inputs = {now(batch_input_)},
              .outputs = {},
              .attributes = {{"axis", std::string(kPipeAxis)},
                             {"peer", std::int64_t{stream.from}},
                             {"stream", stream.name},
                             {"number", crossing.number},
                             {"sender_half", std::int64_t{sender_half(crossing)}},
                             {"dtype", std::string(to_string(value.type.dtype))},
                             {"shape", value.type.shape.dims()}},
              .name = source_.node(value.producer).name,
              .half = half_};
    return now_[at(old_value)] = add(std::move(node), {value})[0];
  }

  void send(ValueId old_value, const Crossing& crossing) {
    const Stream stream = stream_of(crossing);
    add({.op = std::string(ops::kSend),
         .inputs = {now(old_value)},
         .outputs = {},
         .attributes = {{"axis", std::string(kPipeAxis)},
                        {"peer", std::int64_t{stream.to}},
                        {"stream", stream.name},
                        {"number", crossing.number}},
         .name = source_.node(source_.value(old_value).producer).name,
         .half = half_},
        {});
  }

  void copy_half() {
    for (std::size_t n = 0; n < source_.nodes.size(); ++n) {
      const auto node = static_cast<NodeId>(n);
      if (!flows(node) || !is_local(node) || node_half(node) != half_) continue;
      copy(node);
      for (const ValueId output : source_.nodes[n].outputs) {
        for (const Crossing& crossing : crossings_) {
          if (crossing.value == output) send(output, crossing);
        }
      }
    }
    for (const ValueId value : of_half_) now_[at(value)] = kNoValue;  // anew in the next
    of_half_.clear();
  }

  void copy_update() {
    half_ = 0;
    for (std::size_t n = 0; n < source_.nodes.size(); ++n) {
      const auto node = static_cast<NodeId>(n);
      if (node_phase(node) != Phase::kUpdate) continue;
      const int place = node_place(node);
      if (place >= 0) {
        if (rank_of(place) == own_) copy(node);
      } else if (is_total_of_squares(n)) {
        total_of_squares(n);
      } else if (source_.nodes[n].op == "rounded_sum") {
        copy_rounded_sum(n);
      } else if (source_.nodes[n].op == "add_all") {
        copy_add_all(n);
      } else if (place == StageAssignment::kPartial) {
        copy(node);
      }
    }
    for (std::size_t s = 0; s < source_.states.size(); ++s) copy_next(s);
  }

  bool is_total_of_squares(std::size_t n) const {
    return is_sum_of_squares(source_.nodes[n]) && node_place(static_cast<NodeId>(n)) < 0;
  }

  // This rank's summand of a sum over what several stages have, exact, so that neither the order
  // nor who adds what counts.
  void total_of_squares(std::size_t n) {
    const Node& old_node = source_.nodes[n];
    if (old_node.attributes.has("apart")) {
      fail("layer {}: sums of squares of several weights, each for itself, along {}", old_node.name,
           kPipeAxis);
    }
    Node node{.op = "exact_sum_of_squares", .inputs = {}, .outputs = {}, .name = old_node.name};
    std::vector<std::int64_t> numbers;
    for (std::size_t i = 0; i < old_node.inputs.size(); ++i) {
      const NodeId producer = source_.value(old_node.inputs[i]).producer;
      const int place = node_place(producer);
      if (rank_of(node_phase(producer) == Phase::kMicrobatch ? assignment_.stage_at(place)
                                                             : place) != own_) {
        continue;
      }
      node.inputs.push_back(now(old_node.inputs[i]));
      if (old_node.attributes.has("numbers")) {
        numbers.push_back(old_node.attributes.integers("numbers")[i]);
      }
    }
    if (!numbers.empty()) node.attributes.set("numbers", numbers);
    const Value exact{.type = {DType::kI64, {ExactSum::kDigits}}};
    ValueId sum =
        node.inputs.empty() ? exact_zero(old_node.name) : add(std::move(node), {exact})[0];
    if (old_node.op == "sum_of_squares") {
      sum =
          add({.op = "rounded_sum", .inputs = {reduced(sum)}, .outputs = {}, .name = old_node.name},
              {source_.value(old_node.outputs[0])})[0];
    }
    now_[at(old_node.outputs[0])] = sum;
  }

  void copy_rounded_sum(std::size_t n) {
    for (const ValueId input : source_.nodes[n].inputs) {
      const NodeId producer = source_.value(input).producer;
      if (node_place(producer) == StageAssignment::kPartial) now_[at(input)] = reduced(now(input));
    }
    copy(static_cast<NodeId>(n));
  }

  // Every rank gets all of the numbers, in one vector, and adds them up in their order.
  void copy_add_all(std::size_t n) {
    const auto stage_of = [&](ValueId input) { return node_place(source_.value(input).producer); };
    GraphBuilder builder(graph_);
    ValueId zero = kNoValue;
    std::vector<ValueId> numbers, of_stages;
    for (const ValueId input : source_.nodes[n].inputs) {
      if (stage_of(input) < 0) continue;
      of_stages.push_back(input);
      if (rank_of(stage_of(input)) == own_) {
        numbers.push_back(ops::reshape(builder, now(input), {1}));
      } else {
        if (zero == kNoValue) zero = number_zero(source_.nodes[n].name);
        numbers.push_back(zero);
      }
    }
    if (numbers.empty()) return copy(static_cast<NodeId>(n));
    const ValueId all = reduced(ops::concat(builder, numbers, 0));
    const std::vector<ValueId> each =
        ops::split(builder, all, 0, std::vector<std::int64_t>(numbers.size(), 1));
    for (std::size_t i = 0; i < each.size(); ++i) {
      now_[at(of_stages[i])] = ops::reshape(builder, each[i], {});
    }
    copy(static_cast<NodeId>(n));
  }

  // Of the update, as the other ranks' numbers are: a constant would be there before, and ranks
  // would meet in other orders.
  ValueId number_zero(const std::string& name) {
    GraphBuilder builder(graph_);
    return ops::reshape(builder, ops::rounded_sum(builder, {exact_zero(name)}), {1});
  }
  ValueId exact_zero(const std::string& name) {
    return add({.op = "exact_sum_of_squares",
                .inputs = {some_sum()},
                .outputs = {},
                .attributes = {{"numbers", std::vector<std::int64_t>{0}}},
                .name = name},
               {{.type = {DType::kI64, {ExactSum::kDigits}}}})[0];
  }

  ValueId reduced(ValueId sum) {
    const Value value = graph_.value(sum);
    return add({.op = std::string(ops::kAllReduce),
                .inputs = {sum},
                .outputs = {},
                .attributes = {{"axis", std::string(kPipeAxis)}, {"ranks", std::int64_t{ranks_}}},
                .name = "gradient norm"},
               {{.type = value.type, .layout = value.layout}})[0];
  }

  // The rank that updates a state sends it to the others that have it. Where ranks along data share
  // its numbers, each sends its part, which those along data put together there, too.
  void copy_next(std::size_t s) {
    const State& old_state = source_.states[s];
    State& state = graph_.states[s];
    if (old_state.next == kNoValue || !state.is_here()) return;
    if (!state.holders) {
      state.next = now(old_state.next);
      return;
    }
    const std::vector<int> holders = state.holders->ranks;
    const std::string name = graph_.value(state.value).name;
    const auto message = [&](std::string_view op, ValueId input, int peer) {
      return Node{.op = std::string(op),
                  .inputs = {input},
                  .outputs = {},
                  .attributes = {{"axis", std::string(kPipeAxis)},
                                 {"peer", std::int64_t{peer}},
                                 {"stream", std::string("states")},
                                 {"number", static_cast<std::int64_t>(s)}},
                  .name = name};
    };
    const NodeId producer = source_.value(old_state.next).producer;
    const bool is_gathered = producer != kNoNode && is_gather(source_.node(producer));
    const ValueId updated =
        is_gathered ? source_.node(producer).inputs[0] : old_state.next;  // here
    if (holders[0] == own_) {
      graph_.states[s].next = now(old_state.next);
      for (const int holder : holders) {
        if (holder != own_) add(message(ops::kSend, now(updated), holder), {});
      }
      return;
    }
    const Value& value = source_.value(updated);
    Node node = message(ops::kReceive, some_sum(), holders[0]);
    node.attributes.set("dtype", std::string(to_string(value.type.dtype)));
    node.attributes.set("shape", value.type.shape.dims());
    ValueId next = add(std::move(node), {value})[0];
    if (is_gathered) {
      Node gather = source_.node(producer);
      gather.inputs = {next};
      next = add(std::move(gather), {source_.value(old_state.next)})[0];
    }
    graph_.states[s].next = next;
  }
  // Of this rank's leaves: what it belongs to comes after them.
  ValueId some_sum() const {
    const auto sum = std::ranges::find(graph_.nodes, "leaf_sum", &Node::op);
    CONCORD_CHECK(sum != graph_.nodes.end(), "a stage that learns nothing");
    return sum->outputs[0];
  }

  void copy_outputs() {
    for (const Output& output : source_.outputs) {
      const NodeId producer = source_.value(output.value).producer;
      const bool is_here = producer == kNoNode || now_[at(output.value)] != kNoValue;
      if (is_here) graph_.outputs.push_back({output.name, now(output.value)});
    }
  }

  const Graph& source_;
  Plan& plan_;
  int own_, ranks_;
  StageAssignment assignment_;
  std::vector<Crossing> crossings_;
  Graph graph_;
  std::vector<ValueId> now_;                  // by old value
  std::vector<ValueId> of_half_;              // old values that are made anew for each half
  std::map<ValueId, ValueId> summed_copies_;  // of old values
  ValueId batch_input_ = kNoValue;
  int half_ = 0;
};

}  // namespace

Graph cut_into_stages(const Graph& graph, Plan& plan, int rank, const StageTimer& timer) {
  if (plan.mesh.extent(kPipeAxis) == 1) return graph;
  return Cutter(graph, plan, rank, timer).run();
}

}  // namespace concord::parallel

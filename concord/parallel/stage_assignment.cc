#include "concord/parallel/stage_assignment.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <utility>

#include "concord/base/error.h"
#include "concord/graph/op.h"
#include "concord/ops/collective.h"
#include "concord/parallel/stages.h"

namespace concord::parallel {
namespace {

constexpr int kAnywhere = StageAssignment::kAnywhere;
constexpr int kPartial = StageAssignment::kPartial;
constexpr int kUnknown = -3;

std::size_t at(ValueId id) { return static_cast<std::size_t>(id); }

// What an all_gather of numbers has as a second input says when it runs, and is not read.
std::size_t inputs_read(const Node& node) {
  return node.op == ops::kAllGather && ops::is_flat(node) ? 1 : node.inputs.size();
}

class Assignment {
 public:
  Assignment(const Graph& graph, Plan& plan, const StageTimer& timer)
      : graph_(graph),
        plan_(plan),
        pipeline_(plan.pipeline()),
        stages_(pipeline_.stages()),
        phase_(phases(graph)),
        place_(graph.nodes.size(), kUnknown),
        half_(graph.nodes.size(), 0),
        state_of_(graph.values.size(), -1) {
    for (std::size_t s = 0; s < graph.states.size(); ++s) {
      state_of_[at(graph.states[s].value)] = static_cast<int>(s);
    }
    find_sources();
    find_forward();
    find_owners();
    find_cut_points();
    if (!plan.stages.empty()) {
      follow_ends();
    } else if (plan.cuts.empty()) {
      decide(timer);
    } else {
      take_ends(plan.cuts);
    }
  }

  // By stage but the last.
  std::vector<ValueId> borders() const {
    std::vector<ValueId> values;
    for (std::size_t s = 0; s + 1 < ends_.size(); ++s) {
      values.push_back(std::ranges::find(points_, ends_[s], &CutPoint::before)->value);
    }
    return values;
  }

  StageAssignment assign() {
    place_microbatch();
    place_update();
    if (plan_.stages.empty()) decide_states();
    return take();
  }

 private:
  StageAssignment take() {
    return {.pipeline = pipeline_,
            .phase = std::move(phase_),
            .place = std::move(place_),
            .half = std::move(half_),
            .reads_data = std::move(reads_data_)};
  }

  void decide(const StageTimer& timer) {
    check_points();
    const std::string key = decision_key(timer);
    if (timer.decisions != nullptr && timer.decisions->contains(key)) {
      follow_decision(timer.decisions->find(key)->second);
      return;
    }
    time_nodes(timer);
    choose_ends();
    place_microbatch();
    add_up_costs();
    if (timer.decisions != nullptr) timer.decisions->emplace(key, decision());
  }

  int stage_at(int place) const { return place < stages_ ? place : 2 * stages_ - 1 - place; }
  int place(NodeId node) const { return place_[static_cast<std::size_t>(node)]; }
  bool is_source(std::size_t n) const {
    return phase_[n] == Phase::kMicrobatch && !(reads_data_[n] && reads_states_[n]);
  }
  bool is_flow(std::size_t n) const { return phase_[n] == Phase::kMicrobatch && !is_source(n); }

  // What reads samples and weights, directly or not, flows from stage to stage.
  void find_sources() {
    std::vector<bool> data(graph_.values.size()), states(graph_.values.size());
    for (const Input& input : graph_.inputs) {
      data[at(input.value)] = input.kind == Input::Kind::kBatch;
    }
    for (const State& state : graph_.states) states[at(state.value)] = true;
    reads_data_.resize(graph_.nodes.size());
    reads_states_.resize(graph_.nodes.size());
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      const Node& node = graph_.nodes[n];
      for (std::size_t i = 0; i < inputs_read(node); ++i) {
        if (data[at(node.inputs[i])]) reads_data_[n] = true;
        if (states[at(node.inputs[i])]) reads_states_[n] = true;
      }
      for (const ValueId output : node.outputs) {
        data[at(output)] = reads_data_[n];
        states[at(output)] = reads_states_[n];
      }
    }
  }

  void find_forward() {
    std::vector<bool> wanted(graph_.values.size());
    const ValueId loss = graph_.find_output("loss");
    for (const Output& output : graph_.outputs) {
      if (loss == kNoValue || output.value == loss) wanted[at(output.value)] = true;
    }
    std::vector<std::size_t> forward;
    for (std::size_t n = graph_.nodes.size(); n-- > 0;) {
      const Node& node = graph_.nodes[n];
      if (std::ranges::none_of(node.outputs, [&](ValueId id) { return wanted[at(id)]; })) continue;
      for (const ValueId input : node.inputs) wanted[at(input)] = true;
      if (is_flow(n)) forward.push_back(n);
    }
    forward_.assign(forward.rbegin(), forward.rend());
    index_of_.assign(graph_.nodes.size(), -1);
    for (std::size_t i = 0; i < forward_.size(); ++i) {
      index_of_[forward_[i]] = static_cast<int>(i);
    }
  }

  // The node of the forward pass to whose layer a node belongs: that of its name, or, of what adds
  // up gradients, the first that any of them belongs to.
  void find_owners() {
    std::map<std::string_view, int> last_of;
    for (std::size_t i = 0; i < forward_.size(); ++i) {
      last_of[graph_.nodes[forward_[i]].name] = static_cast<int>(i);
    }
    owner_ = index_of_;
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (!is_flow(n) || owner_[n] >= 0) continue;
      const auto found = last_of.find(graph_.nodes[n].name);
      if (found != last_of.end()) {
        owner_[n] = found->second;
        continue;
      }
      owner_[n] = static_cast<int>(forward_.size()) - 1;
      for (const ValueId input : graph_.nodes[n].inputs) {
        const NodeId producer = graph_.value(input).producer;
        if (producer == kNoNode || !is_flow(static_cast<std::size_t>(producer))) continue;
        owner_[n] = std::min(owner_[n], owner_[static_cast<std::size_t>(producer)]);
      }
    }
  }

  // The states that a node reads, through what is computed from states alone.
  std::set<int> states_read(std::size_t n) {
    std::set<int> read;
    const Node& node = graph_.nodes[n];
    for (std::size_t i = 0; i < inputs_read(node); ++i) {
      const ValueId input = node.inputs[i];
      if (state_of_[at(input)] >= 0) read.insert(state_of_[at(input)]);
      const NodeId producer = graph_.value(input).producer;
      if (producer == kNoNode) continue;
      const auto p = static_cast<std::size_t>(producer);
      if (phase_[p] == Phase::kPrologue || is_source(p)) read.merge(states_read(p));
    }
    return read;
  }

  struct CutPoint {
    std::size_t before = 0;  // nodes of the forward pass
    std::size_t bytes = 0;   // of the value that crosses it
    std::size_t states = 0;  // that learn, read before it
    ValueId value = kNoValue;
  };

  void find_cut_points() {
    first_reader_.assign(graph_.states.size(), -1);
    std::vector<std::size_t> states_before(forward_.size() + 1, 0);
    std::vector<int> last_reader(graph_.values.size(), -1);
    for (std::size_t i = 0; i < forward_.size(); ++i) {
      states_before[i + 1] = states_before[i];
      for (const int state : states_read(forward_[i])) {
        int& first = first_reader_[static_cast<std::size_t>(state)];
        if (first >= 0) continue;
        first = static_cast<int>(i);
        const State& read = graph_.states[static_cast<std::size_t>(state)];
        if (read.role == State::Role::kParameter) ++states_before[i + 1];
      }
      for (const ValueId input : graph_.nodes[forward_[i]].inputs) {
        last_reader[at(input)] = static_cast<int>(i);
      }
    }
    for (std::size_t k = 1; k < forward_.size(); ++k) {
      std::size_t crossing = 0, bytes = 0;
      ValueId value = kNoValue;
      for (std::size_t i = 0; i < k; ++i) {
        for (const ValueId output : graph_.nodes[forward_[i]].outputs) {
          if (last_reader[at(output)] < static_cast<int>(k)) continue;
          ++crossing;
          bytes = graph_.type(output).bytes();
          value = output;
        }
      }
      if (crossing == 1) points_.push_back({k, bytes, states_before[k], value});
    }
    all_states_ = states_before.back();
    keep_distinct_cut_points();
  }

  // Of cut points between which no weight is read, the one that the fewest bytes cross.
  void keep_distinct_cut_points() {
    std::vector<CutPoint> distinct;
    for (const CutPoint& point : points_) {
      if (point.states == 0 || point.states == all_states_) continue;
      if (!distinct.empty() && distinct.back().states == point.states) {
        if (point.bytes <= distinct.back().bytes) distinct.back() = point;
      } else {
        distinct.push_back(point);
      }
    }
    points_ = std::move(distinct);
  }

  void check_points() const {
    const std::size_t most = points_.size() + 1;
    if (most >= static_cast<std::size_t>(stages_)) return;
    fail(
        "parallel.mesh.pipe = {}{}: expected at most {} stages, since the model has {} cut "
        "point{} (one value leads from the layers before to those behind)",
        pipeline_.ranks,
        pipeline_.chunks > 1
            ? fmt::format(" with parallel.chunks = {}, {} stages", pipeline_.chunks, stages_)
            : "",
        most, points_.size(), points_.size() == 1 ? "" : "s");
  }

  double counted_seconds(const Node& node) const {
    double bytes = 0;
    for (const ValueId id : node.inputs) bytes += static_cast<double>(graph_.type(id).bytes());
    for (const ValueId id : node.outputs) bytes += static_cast<double>(graph_.type(id).bytes());
    return std::max(cost_of(graph_, node).flops / plan_.machine.flops_per_second,
                    bytes / plan_.machine.memory_bytes_per_second);
  }

  void time_nodes(const StageTimer& timer) {
    seconds_.assign(graph_.nodes.size(), 0);
    std::vector<std::size_t> nodes;
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (!is_flow(n)) continue;
      nodes.push_back(n);
      seconds_[n] = counted_seconds(graph_.nodes[n]);
    }
    if (timer.measure == nullptr) return;
    const std::vector<std::optional<double>> measured = timer.measure(graph_, nodes);
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (measured[i]) seconds_[nodes[i]] = *measured[i];
    }
  }

  // The same on all ranks: of their graphs, the ops and the shapes of what they compute are.
  std::string decision_key(const StageTimer& timer) const {
    std::string flow;
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (!is_flow(n)) continue;
      flow += graph_.nodes[n].op;
      for (const ValueId id : graph_.nodes[n].outputs) flow += " " + to_string(graph_.type(id));
      flow += '\n';
    }
    return fmt::format("{} stages of {:016x} {} {}", stages_, XXH3_64bits(flow.data(), flow.size()),
                       name_of(pipeline_.schedule), timer.machine);
  }

  // For each stage the number of the cut point at its end, and its costs.
  std::string decision() const {
    std::string text;
    for (std::size_t s = 0; s < ends_.size(); ++s) {
      const StageCosts& costs = plan_.stage_costs[s];
      text += fmt::format("{}{} {:.3g} {:.3g} {:.3g}", s == 0 ? "" : ", ",
                          s < plan_.cuts.size() ? plan_.cuts[s] : points_.size(), costs.forward,
                          costs.backward, costs.weights);
    }
    return text;
  }

  void follow_decision(const std::string& text) {
    std::istringstream numbers(text);
    std::vector<std::size_t> cuts;
    std::vector<StageCosts> all_costs;
    bool makes_sense = true;
    for (int s = 0; s < stages_ && makes_sense; ++s) {
      std::size_t point = 0;
      StageCosts costs;
      char comma = ',';
      if (s > 0) numbers >> comma;
      numbers >> point >> costs.forward >> costs.backward >> costs.weights;
      const bool is_last = s + 1 == stages_;
      makes_sense = numbers && comma == ',' && (s == 0 || point > cuts.back()) &&
                    (is_last ? point == points_.size() : point < points_.size());
      if (!is_last) cuts.push_back(point);
      all_costs.push_back(costs);
    }
    if (makes_sense && (numbers >> std::ws).eof()) {
      take_ends(cuts);
      plan_.cuts = std::move(cuts);
      plan_.stage_costs = std::move(all_costs);
      return;
    }
    fail(
        "the stages \"{}\" are none of this model: expected {} of them, behind cut points 0 to {}; "
        "delete the cache of kernel choices (~/.cache/concord/kernels.json)",
        text, stages_, points_.size() - 1);
  }

  void take_ends(std::span<const std::size_t> cuts) {
    for (const std::size_t point : cuts) ends_.push_back(points_[point].before);
    ends_.push_back(forward_.size());
  }

  void add_up_costs() {
    plan_.stage_costs.assign(ends_.size(), {0, 0, 0});
    const auto halves = halves_of(plan_);
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (!is_flow(n)) continue;
      StageCosts& costs = plan_.stage_costs[static_cast<std::size_t>(stage_at(place_[n]))];
      const Half half = halves[static_cast<std::size_t>(half_[n])].first;
      (half == Half::kForward    ? costs.forward
       : half == Half::kBackward ? costs.backward
                                 : costs.weights) += seconds_[n];
    }
  }

  // The dearest stage as cheap as can be: by dynamic programming over the number of stages and
  // their last cut point.
  void choose_ends() {
    const auto wanted = static_cast<std::size_t>(stages_);
    std::vector<double> before(forward_.size() + 1, 0);  // seconds of the layers before
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (is_flow(n)) before[static_cast<std::size_t>(owner_[n]) + 1] += seconds_[n];
    }
    for (std::size_t i = 1; i < before.size(); ++i) before[i] += before[i - 1];

    std::vector<std::size_t> borders = {0};
    for (const CutPoint& point : points_) borders.push_back(point.before);
    borders.push_back(forward_.size());
    // dearest[b]: of the layers before border b in so many stages, and where the last begins.
    constexpr double kNever = std::numeric_limits<double>::infinity();
    std::vector<double> dearest(borders.size(), kNever);
    dearest[0] = 0;
    std::vector<std::vector<std::size_t>> begins;
    for (std::size_t s = 0; s < wanted; ++s) {
      std::vector<double> next(borders.size(), kNever);
      begins.emplace_back(borders.size(), 0);
      for (std::size_t b = 1; b < borders.size(); ++b) {
        for (std::size_t a = 0; a < b; ++a) {
          const double cost = std::max(dearest[a], before[borders[b]] - before[borders[a]]);
          if (cost >= next[b]) continue;
          next[b] = cost;
          begins[s][b] = a;
        }
      }
      dearest = std::move(next);
    }
    plan_.cuts.resize(wanted - 1);
    std::size_t border = borders.size() - 1;
    for (std::size_t s = wanted; s-- > 1;) {
      border = begins[s][border];
      plan_.cuts[s - 1] = border - 1;
    }
    take_ends(plan_.cuts);
  }

  // The cut point between the states of one stage and those of the next that would have been
  // chosen: programs of other sizes have the same messages.
  void follow_ends() {
    for (int s = 0; s + 1 < stages_; ++s) {
      const auto fits = [&](const CutPoint& point) {
        for (std::size_t i = 0; i < graph_.states.size(); ++i) {
          if (first_reader_[i] < 0) continue;
          const bool is_before = static_cast<std::size_t>(first_reader_[i]) < point.before;
          const std::string& name = graph_.value(graph_.states[i].value).name;
          const auto found = plan_.first_stages.find(name);
          CONCORD_CHECK(found != plan_.first_stages.end(), "state \"{}\"", name);
          if (is_before != (found->second <= s)) return false;
        }
        return true;
      };
      const auto found = std::ranges::find_if(points_, fits);
      CONCORD_CHECK(found != points_.end(), "no cut point behind stage {}", s);
      ends_.push_back(found->before);
    }
    ends_.push_back(forward_.size());
  }

  int stage_of_owner(int owner) const {
    const auto end = std::ranges::upper_bound(ends_, static_cast<std::size_t>(owner));
    return static_cast<int>(end - ends_.begin());
  }

  // An evaluation has a forward pass alone.
  void place_microbatch() {
    const bool goes_back = std::ranges::any_of(
        graph_.states, [](const State& state) { return state.next != kNoValue; });
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (is_source(n)) place_[n] = kAnywhere;
      if (!is_flow(n)) continue;
      const int stage = stage_of_owner(owner_[n]);
      place_[n] = index_of_[n] >= 0 || !goes_back ? stage : 2 * stages_ - 1 - stage;
      for (const ValueId input : graph_.nodes[n].inputs) {
        const NodeId producer = graph_.value(input).producer;
        if (producer == kNoNode || !is_flow(static_cast<std::size_t>(producer))) continue;
        place_[n] = std::max(place_[n], place_[static_cast<std::size_t>(producer)]);
      }
    }
    if (goes_back) turn_back_early();
    const std::vector<bool> weights = of_weights();
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (!is_flow(n)) continue;
      const int chunk = place_of(pipeline_, stage_at(place_[n])).second;
      const Half half = place_[n] < stages_ ? Half::kForward
                        : weights[n]        ? Half::kWeights
                                            : Half::kBackward;
      half_[n] = half_index(plan_, half, chunk);
    }
  }

  // What computes the loss and a weight's gradient at once belongs to the backward pass: the
  // gradient need not be kept until that begins.
  void turn_back_early() {
    std::vector<bool> goes_on(graph_.values.size(),
                              false);  // read by what stays in the forward pass
    for (std::size_t i = forward_.size(); i-- > 0;) {
      const std::size_t n = forward_[i];
      const Node& node = graph_.nodes[n];
      const auto is_gradient = [&](ValueId output) {
        return std::ranges::any_of(node.inputs, [&](ValueId input) {
          return state_of_[at(input)] >= 0 && graph_.type(input) == graph_.type(output);
        });
      };
      const auto is_number = [&](ValueId output) {
        return graph_.type(output).shape.elements() == 1;
      };
      const bool turns =
          place_[n] == stages_ - 1 &&
          std::ranges::none_of(node.outputs, [&](ValueId id) { return goes_on[at(id)]; }) &&
          (std::ranges::any_of(node.outputs, is_gradient) ||
           std::ranges::all_of(node.outputs, is_number));
      if (turns) {
        place_[n] = stages_;
      } else {
        for (const ValueId input : node.inputs) goes_on[at(input)] = true;
      }
    }
  }

  // Of the backward pass, what no other stage waits for.
  std::vector<bool> of_weights() const {
    std::vector<bool> weights(graph_.nodes.size(), false);
    if (!splits_backward(pipeline_.schedule)) return weights;
    std::vector<bool> awaited(graph_.nodes.size(), false);
    for (std::size_t n = graph_.nodes.size(); n-- > 0;) {
      if (!is_flow(n)) continue;
      weights[n] = place_[n] >= stages_ && !awaited[n];
      for (const ValueId input : graph_.nodes[n].inputs) {
        const NodeId producer = graph_.value(input).producer;
        if (producer == kNoNode || !is_flow(static_cast<std::size_t>(producer))) continue;
        const auto p = static_cast<std::size_t>(producer);
        if (place_[p] != place_[n] || awaited[n]) awaited[p] = true;
      }
    }
    return weights;
  }

  // Of an update, what reads the sums of one stage belongs there.
  void place_update() {
    home_.assign(graph_.states.size(), kUnknown);
    for (std::size_t s = 0; s < graph_.states.size(); ++s) {
      if (first_reader_[s] >= 0) home_[s] = stage_of_owner(first_reader_[s]);
      if (plan_.stages.empty()) continue;
      home_[s] = plan_.stages.at(graph_.value(graph_.states[s].value).name)[0];
    }
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (phase_[n] == Phase::kUpdate) place_[n] = place_of_update(graph_.nodes[n]);
    }
  }
  int place_of_update(const Node& node) const {
    if (node.op == "rounded_sum" || node.op == "add_all") return kAnywhere;
    const bool is_of_many = is_sum_of_squares(node) && !node.attributes.has("apart");
    if (is_of_many && node.op == "exact_sum_of_squares") return kPartial;
    if (is_of_many && node.inputs.size() > 1) return kAnywhere;
    int place = kAnywhere;
    for (const ValueId input : node.inputs) {
      const NodeId producer = graph_.value(input).producer;
      if (producer == kNoNode) continue;
      const auto p = static_cast<std::size_t>(producer);
      if (phase_[p] == Phase::kPrologue) continue;
      int of_input = place_[p];
      if (phase_[p] == Phase::kMicrobatch) of_input = stage_at(of_input);  // of a leaf_sum
      if (of_input == kAnywhere || of_input == place) continue;
      if (place != kAnywhere) {
        fail("op {} of layer {} reads what two stages make, and cannot be divided along {}",
             node.op, node.name, kPipeAxis);
      }
      place = of_input;
    }
    return place;
  }

  // Where a state is: it goes to where it is updated, and to everyone who reads it.
  void decide_states() {
    std::vector<std::set<int>> readers(graph_.states.size());
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (!is_flow(n)) continue;
      for (const int state : states_read(n)) {
        readers[static_cast<std::size_t>(state)].insert(stage_at(place_[n]));
      }
    }
    for (std::size_t s = 0; s < graph_.states.size(); ++s) {
      const State& state = graph_.states[s];
      const NodeId producer = state.next == kNoValue ? kNoNode : graph_.value(state.next).producer;
      if (producer != kNoNode && phase_[static_cast<std::size_t>(producer)] == Phase::kUpdate &&
          place(producer) >= 0) {
        home_[s] = place(producer);
      }
    }
    for (std::size_t s = 0; s < graph_.states.size(); ++s) {
      const std::string& name = graph_.value(graph_.states[s].value).name;
      std::vector<int>& holders = plan_.stages[name];
      if (home_[s] == kUnknown) {  // it belongs to no stage: each has it, and updates it
        for (int stage = 0; stage < stages_; ++stage) holders.push_back(stage);
        plan_.everywhere.insert(name);
        continue;
      }
      holders.push_back(home_[s]);
      for (const int stage : readers[s]) {
        if (stage != home_[s]) holders.push_back(stage);
      }
      const bool is_read = first_reader_[s] >= 0;
      plan_.first_stages[name] = is_read ? stage_of_owner(first_reader_[s]) : home_[s];
    }
    follow_replicas();
  }

  // The average of a weight is wherever the weight is.
  void follow_replicas() {
    for (const State& state : graph_.states) {
      if (state.next == kNoValue) continue;
      const NodeId producer = graph_.value(state.next).producer;
      if (producer == kNoNode) continue;
      for (const State& read : graph_.states) {
        if (read.next == state.next || read.next == kNoValue || read.next == read.value) continue;
        const std::vector<ValueId>& inputs = graph_.node(producer).inputs;
        if (std::ranges::count(inputs, as_updated(read)) == 0) continue;
        const std::string& name = graph_.value(state.value).name;
        const std::string& of = graph_.value(read.value).name;
        if (type_before_data(state) != type_before_data(read)) continue;
        plan_.stages[name] = plan_.stages[of];
        plan_.first_stages[name] = plan_.first_stages[of];
      }
    }
  }

  // A state's next value, or where ranks along data share its numbers this rank's part of it.
  ValueId as_updated(const State& state) const {
    const NodeId producer = graph_.value(state.next).producer;
    if (!state.flat || producer == kNoNode) return state.next;
    const Node& node = graph_.node(producer);
    return node.op == ops::kAllGather && ops::is_flat(node) ? node.inputs[0] : state.next;
  }
  const TensorType& type_before_data(const State& state) const {
    return state.flat ? state.flat->type : graph_.type(state.value);
  }

  const Graph& graph_;
  Plan& plan_;
  Pipeline pipeline_;
  int stages_;
  std::vector<Phase> phase_;
  std::vector<int> place_, half_;  // by node
  std::vector<int> state_of_;      // by value
  std::vector<bool> reads_data_, reads_states_;
  std::vector<std::size_t> forward_;  // nodes, in order
  std::vector<int> index_of_, owner_;
  std::vector<int> first_reader_;  // by state: in forward_
  std::size_t all_states_ = 0;
  std::vector<CutPoint> points_;
  std::vector<double> seconds_;    // by node
  std::vector<std::size_t> ends_;  // by stage: nodes of the forward pass before its end
  std::vector<int> home_;          // by state: its stage
};

}  // namespace

bool is_sum_of_squares(const Node& node) {
  return node.op == "sum_of_squares" || node.op == "exact_sum_of_squares";
}

std::vector<ValueId> decide_cuts(const Graph& graph, Plan& plan, const StageTimer& timer) {
  if (plan.mesh.extent(kPipeAxis) == 1) return {};
  return Assignment(graph, plan, timer).borders();
}

StageAssignment assign_stages(const Graph& graph, Plan& plan, const StageTimer& timer) {
  return Assignment(graph, plan, timer).assign();
}

std::vector<std::pair<Half, int>> halves_of(const Plan& plan) {
  std::vector<std::pair<Half, int>> halves;
  for (int c = 0; c < plan.chunks; ++c) halves.emplace_back(Half::kForward, c);
  for (int c = plan.chunks; c-- > 0;) halves.emplace_back(Half::kBackward, c);
  if (!splits_backward(plan.schedule)) return halves;
  for (int c = plan.chunks; c-- > 0;) halves.emplace_back(Half::kWeights, c);
  return halves;
}

int half_index(const Plan& plan, Half half, int chunk) {
  const auto halves = halves_of(plan);
  const auto found = std::ranges::find(halves, std::pair(half, chunk));
  CONCORD_CHECK(found != halves.end());
  return static_cast<int>(found - halves.begin());
}

}  // namespace concord::parallel

#include "concord/parallel/candidates.h"

#include <algorithm>
#include <deque>
#include <set>

#include "concord/base/error.h"

namespace concord::parallel {
namespace {

std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

std::vector<ValueId> operands_of(const Node& node) {
  std::vector<ValueId> operands = node.inputs;
  operands.insert(operands.end(), node.outputs.begin(), node.outputs.end());
  return operands;
}

const Placement& placement_of(const PlacementSignature& signature, std::size_t operand) {
  return operand < signature.inputs.size() ? signature.inputs[operand]
                                           : signature.outputs[operand - signature.inputs.size()];
}

PlacementSignature all_replicated(const Node& node) {
  return {std::vector<Placement>(node.inputs.size()), std::vector<Placement>(node.outputs.size())};
}

// Whether the numbers that ranks compute so might differ from those of one rank: because they add
// up summands, of an operand or in what the op's local form sends, or because the op is one whose
// kernels add up in an order that depends on how many sums there are.
bool splits_sums(const Node& node, const PlacementSignature& signature) {
  constexpr std::string_view kOrderedByShape[] = {
      "conv2d",      "conv2d_backward_data",        "conv2d_backward_weights",
      "batch_norm",  "batch_norm_backward",         "batch_norm_inference",
      "channel_sum", "batch_norm_over_leaves_sums", "group_norm_backward",
      "sum_to_shape"};
  const auto is_partial = [](const Placement& placement) { return placement.is_partial(); };
  return signature.bytes_sent > 0 || std::ranges::any_of(signature.inputs, is_partial) ||
         std::ranges::any_of(signature.outputs, is_partial) ||
         std::ranges::count(kOrderedByShape, node.op) > 0;
}

class Closure {
 public:
  Closure(const Graph& graph, int ranks, bool may_split_sums)
      : graph_(graph),
        ranks_(ranks),
        may_split_sums_(may_split_sums),
        samples_(sample_splits(graph)),
        known_(graph.values.size()),
        readers_(graph.values.size()) {
    for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
      for (const ValueId id : operands_of(graph.nodes[n])) readers_[index(id)].insert(n);
    }
  }

  Candidates run() {
    Candidates found;
    found.nodes.resize(graph_.nodes.size());
    std::deque<std::size_t> waiting;
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) waiting.push_back(n);
    std::set<std::size_t> queued(waiting.begin(), waiting.end());
    while (!waiting.empty()) {
      const std::size_t n = waiting.front();
      waiting.pop_front();
      queued.erase(n);
      found.nodes[n] = signatures(graph_.nodes[n]);
      for (const std::size_t neighbour : learn(graph_.nodes[n], found.nodes[n])) {
        if (queued.insert(neighbour).second) waiting.push_back(neighbour);
      }
    }
    for (const State& state : graph_.states) found.states.push_back(placements(state, found));
    return found;
  }

 private:
  bool splits_samples(const Node& node, const PlacementSignature& signature) const {
    const std::vector<ValueId> operands = operands_of(node);
    for (std::size_t o = 0; o < operands.size(); ++o) {
      const Placement& placement = placement_of(signature, o);
      if (placement.is_split() && placement == samples_[index(operands[o])]) return true;
    }
    return false;
  }

  std::vector<PlacementSignature> signatures(const Node& node) const {
    std::vector<std::vector<Placement>> known;
    for (const ValueId id : operands_of(node)) known.push_back(known_[index(id)]);
    std::vector<PlacementSignature> found = offered_signatures(graph_, node, ranks_, known);
    std::erase_if(found, [&](const auto& signature) {
      return splits_samples(node, signature) || (!may_split_sums_ && splits_sums(node, signature));
    });
    found.insert(found.begin(), all_replicated(node));
    return found;
  }

  // Remembers the splits by sections; returns the nodes to which some are new.
  std::set<std::size_t> learn(const Node& node, const std::vector<PlacementSignature>& signatures) {
    std::set<std::size_t> touched;
    const std::vector<ValueId> operands = operands_of(node);
    for (const PlacementSignature& signature : signatures) {
      for (std::size_t o = 0; o < operands.size(); ++o) {
        const Placement& split = placement_of(signature, o);
        if (!split.is_split() || split.sections == std::vector<std::int64_t>{1}) continue;
        std::vector<Placement>& known = known_[index(operands[o])];
        if (std::ranges::count(known, split) > 0) continue;
        known.push_back(split);
        touched.insert(readers_[index(operands[o])].begin(), readers_[index(operands[o])].end());
      }
    }
    return touched;
  }

  // As those who read the state would have it, and whoever computes the next. A weight of products
  // and embeddings is held in parts where that can be: for this the axis is there.
  std::vector<Placement> placements(const State& state, const Candidates& found) const {
    std::vector<Placement> splits;
    const auto add = [&](const Placement& placement) {
      if (placement.is_split() && std::ranges::count(splits, placement) == 0) {
        splits.push_back(placement);
      }
    };
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      const Node& node = graph_.nodes[n];
      const std::vector<ValueId> operands = operands_of(node);
      for (std::size_t o = 0; o < operands.size(); ++o) {
        if (operands[o] != state.value && operands[o] != state.next) continue;
        for (const PlacementSignature& signature : found.nodes[n]) add(placement_of(signature, o));
      }
    }
    if (!is_divided_weight(graph_, state) || splits.empty())
      splits.insert(splits.begin(), Placement::replicate());
    return splits;
  }

  const Graph& graph_;
  int ranks_;
  bool may_split_sums_;
  std::vector<Placement> samples_;
  std::vector<std::vector<Placement>> known_;   // by value: splits by sections
  std::vector<std::set<std::size_t>> readers_;  // by value: nodes of which it is an operand
};

}  // namespace

Candidates find_candidates(const Graph& graph, int ranks, bool may_split_sums) {
  return Closure(graph, ranks, may_split_sums).run();
}

bool is_divided_weight(const Graph& graph, const State& state) {
  if (state.role != State::Role::kParameter || graph.type(state.value).shape.rank() < 2) {
    return false;
  }
  return std::ranges::any_of(graph.nodes, [&](const Node& node) {
    return (node.op == "matmul" || node.op == "gather" || node.op == "linear_cross_entropy") &&
           std::ranges::count(node.inputs, state.value) > 0;
  });
}

std::vector<PlacementSignature> offered_signatures(
    const Graph& graph, const Node& node, int ranks,
    const std::vector<std::vector<Placement>>& known_splits) {
  const Op& op = find_op(node.op);
  if (op.signatures == nullptr) return {};
  std::vector<TensorType> inputs, outputs;
  for (const ValueId id : node.inputs) inputs.push_back(graph.type(id));
  for (const ValueId id : node.outputs) outputs.push_back(graph.type(id));
  std::vector<PlacementSignature> found =
      op.signatures({node, inputs, outputs, ranks, known_splits});
  std::vector<PlacementSignature> valid;
  for (PlacementSignature& signature : found) {
    CONCORD_CHECK(
        signature.inputs.size() == inputs.size() && signature.outputs.size() == outputs.size(),
        "a signature of {}", node.op);
    bool fits = true;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      fits = fits && divides(inputs[i].shape, signature.inputs[i], ranks);
    }
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      fits = fits && divides(outputs[o].shape, signature.outputs[o], ranks);
    }
    if (fits && std::ranges::count(valid, signature) == 0) valid.push_back(std::move(signature));
  }
  return valid;
}

// The batch is split as data parallelism would split it, and the ops' own rules say what becomes of
// that. Everything divides among one rank.
std::vector<Placement> sample_splits(const Graph& graph) {
  std::vector<Placement> splits(graph.values.size());
  for (const Input& input : graph.inputs) {
    // Of one sample there is nothing to divide, and its rows are one sequence's.
    const Value& value = graph.value(input.value);
    const bool has_samples = input.kind == Input::Kind::kBatch && value.name != "position" &&
                             value.type.shape.rank() > 0 && value.type.shape[0] > 1;
    if (has_samples) splits[index(input.value)] = Placement::split(0);
  }
  for (const Node& node : graph.nodes) {
    std::vector<std::vector<Placement>> known;
    std::vector<Placement> inputs;
    for (const ValueId id : node.inputs) {
      inputs.push_back(splits[index(id)]);
      known.push_back({splits[index(id)]});
    }
    if (std::ranges::none_of(inputs, [](const Placement& p) { return p.is_split(); })) continue;
    known.resize(node.inputs.size() + node.outputs.size());
    const std::vector<PlacementSignature> offered = offered_signatures(graph, node, 1, known);
    const auto found = std::ranges::find(offered, inputs, &PlacementSignature::inputs);
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      const ValueId output = node.outputs[o];
      if (found != offered.end()) {
        if (found->outputs[o].is_split()) splits[index(output)] = found->outputs[o];
        continue;
      }
      // Of an op that cannot be divided so, what has the shape of an input has its samples in the
      // same place.
      for (const ValueId input : node.inputs) {
        if (splits[index(input)].is_split() &&
            graph.type(input).shape == graph.type(output).shape) {
          splits[index(output)] = splits[index(input)];
        }
      }
    }
  }
  return splits;
}

}  // namespace concord::parallel

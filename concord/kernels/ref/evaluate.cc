#include <algorithm>

#include "concord/base/error.h"
#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

std::map<std::string, Kernel, std::less<>>& registry() {
  static std::map<std::string, Kernel, std::less<>> kernels;
  return kernels;
}

class Evaluation {
 public:
  explicit Evaluation(const Graph& graph)
      : graph_(graph), phase_(phases(graph)), values_(graph.values.size()) {}

  void bind(const Bindings& bindings, bool batch_inputs) {
    for (const Input& input : graph_.inputs) {
      if ((input.kind == Input::Kind::kBatch) == batch_inputs) bind(input.value, bindings);
    }
    if (batch_inputs) return;
    for (const State& state : graph_.states) bind(state.value, bindings);
  }

  void run(Phase phase) {
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      if (phase_[i] == phase && graph_.nodes[i].op != "leaf_sum") run(graph_.nodes[i]);
    }
  }
  void run(const Node& node) {
    std::vector<const Array*> inputs;
    for (const ValueId id : node.inputs) inputs.push_back(&value(id));
    std::vector<Array> outputs;
    for (const ValueId id : node.outputs) outputs.emplace_back(graph_.type(id).shape);
    find_kernel(node.op)(Call{node, inputs, outputs});
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      value(node.outputs[o]) = rounded(std::move(outputs[o]), graph_.type(node.outputs[o]).dtype);
    }
  }
  bool is_in(Phase phase, std::size_t node) const { return phase_[node] == phase; }

  // What the leaf_sum nodes read, in order of the nodes.
  std::vector<Array> summands() const {
    std::vector<Array> result;
    for (const Node& node : graph_.nodes) {
      if (node.op == "leaf_sum")
        result.push_back(values_[static_cast<std::size_t>(node.inputs[0])]);
    }
    return result;
  }
  void set_sums(std::vector<Array> sums) {
    std::size_t next = 0;
    for (const Node& node : graph_.nodes) {
      if (node.op == "leaf_sum") value(node.outputs[0]) = std::move(sums[next++]);
    }
  }

  Array& value(ValueId id) { return values_[static_cast<std::size_t>(id)]; }
  std::vector<Array> take_values() { return std::move(values_); }

 private:
  void bind(ValueId id, const Bindings& bindings) {
    const Value& v = graph_.value(id);
    const auto found = bindings.find(v.name);
    if (found == bindings.end()) fail("nothing is bound to \"{}\"", v.name);
    if (found->second.shape != v.type.shape) {
      fail("\"{}\" is bound to {}; expected {}", v.name, to_string(found->second.shape),
           to_string(v.type.shape));
    }
    value(id) = rounded(found->second, v.type.dtype);
  }

  const Graph& graph_;
  std::vector<Phase> phase_;
  std::vector<Array> values_;
};

void add_to(std::vector<Array>& sums, const std::vector<Array>& more) {
  for (std::size_t i = 0; i < sums.size(); ++i) {
    for (std::size_t k = 0; k < sums[i].data.size(); ++k) sums[i].data[k] += more[i].data[k];
  }
}

// The canonical tree over leaves [begin, end): the left child holds the largest power of two of
// leaves that is smaller than the whole.
std::vector<Array> tree_sum(const std::vector<std::vector<Array>>& leaves, std::size_t begin,
                            std::size_t end) {
  if (end - begin == 1) return leaves[begin];
  std::size_t half = 1;
  while (half * 2 < end - begin) half *= 2;
  std::vector<Array> sums = tree_sum(leaves, begin, begin + half);
  add_to(sums, tree_sum(leaves, begin + half, end));
  return sums;
}

}  // namespace

Array rounded(Array array, DType dtype) {
  if (dtype != DType::kBF16) return array;
  for (double& x : array.data) x = static_cast<float>(BF16(static_cast<float>(x)));
  return array;
}

RegisterKernel::RegisterKernel(std::string op, Kernel kernel) {
  const bool inserted = registry().emplace(op, kernel).second;
  CONCORD_CHECK(inserted, "the reference kernel of \"{}\" is defined twice", op);
}

Kernel find_kernel(std::string_view op) {
  const auto found = registry().find(op);
  if (found == registry().end()) fail("op \"{}\" has no reference kernel", op);
  return found->second;
}

namespace {

bool has_totals(const Graph& graph) {
  return std::ranges::count(graph.nodes, "leaf_total", &Node::op) > 0;
}

// The nodes of a phase on all ranks, which meet at all_reduce nodes.
void run_together(const Graph& graph, std::vector<Evaluation>& ranks, Phase phase) {
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    if (!ranks[0].is_in(phase, n) || node.op == "leaf_sum") continue;
    if (node.op == "all_reduce") {
      std::vector<std::vector<Array>> summands;
      for (Evaluation& rank : ranks) summands.push_back({rank.value(node.inputs[0])});
      const Array sum = tree_sum(summands, 0, summands.size())[0];
      for (Evaluation& rank : ranks) rank.value(node.outputs[0]) = sum;
    } else {
      for (Evaluation& rank : ranks) rank.run(node);
    }
  }
}

// Up to the update, where the ranks meet before: each has one leaf, in one microbatch.
void evaluate_side_by_side(const Graph& graph, std::vector<Evaluation>& ranks,
                           const Bindings& bindings,
                           const std::vector<std::vector<std::vector<Bindings>>>& leaves_of_ranks) {
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    if (leaves_of_ranks[r].size() != 1 || leaves_of_ranks[r][0].size() != 1) {
      fail("totals over leaves need one leaf on each rank, in one microbatch");
    }
    ranks[r].bind(bindings, /*batch_inputs=*/false);
    ranks[r].run(Phase::kPrologue);
    ranks[r].bind(leaves_of_ranks[r][0][0], /*batch_inputs=*/true);
  }
  run_together(graph, ranks, Phase::kMicrobatch);
  for (Evaluation& rank : ranks) rank.set_sums(rank.summands());
}

// Up to the update, with the sums over these leaves.
void evaluate_leaves(Evaluation& evaluation, const Bindings& bindings,
                     const std::vector<std::vector<Bindings>>& leaves) {
  if (leaves.empty()) fail("a step needs at least one leaf");
  evaluation.bind(bindings, /*batch_inputs=*/false);
  evaluation.run(Phase::kPrologue);
  std::vector<std::vector<Array>> of_leaves;
  for (const std::vector<Bindings>& microbatches : leaves) {
    if (microbatches.empty()) fail("a leaf needs at least one microbatch");
    for (std::size_t m = 0; m < microbatches.size(); ++m) {
      evaluation.bind(microbatches[m], /*batch_inputs=*/true);
      evaluation.run(Phase::kMicrobatch);
      if (m == 0) {
        of_leaves.push_back(evaluation.summands());
      } else {
        add_to(of_leaves.back(), evaluation.summands());
      }
    }
  }
  evaluation.set_sums(tree_sum(of_leaves, 0, of_leaves.size()));
}

StepResult result_of(const Graph& graph, Evaluation& evaluation) {
  StepResult result;
  for (const Output& output : graph.outputs)
    result.outputs[output.name] = evaluation.value(output.value);
  for (const State& state : graph.states) {
    const ValueId next = state.next == kNoValue ? state.value : state.next;
    result.next_states[graph.value(state.value).name] = evaluation.value(next);
  }
  return result;
}

}  // namespace

StepResult evaluate_step(const Graph& graph, const Bindings& bindings,
                         const std::vector<std::vector<Bindings>>& leaves) {
  return evaluate_ranks(graph, bindings, {leaves})[0];
}

std::vector<StepResult> evaluate_ranks(
    const Graph& graph, const Bindings& bindings,
    const std::vector<std::vector<std::vector<Bindings>>>& leaves_of_ranks) {
  std::vector<Evaluation> ranks(leaves_of_ranks.size(), Evaluation(graph));
  if (has_totals(graph)) {
    evaluate_side_by_side(graph, ranks, bindings, leaves_of_ranks);
  } else {
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      evaluate_leaves(ranks[r], bindings, leaves_of_ranks[r]);
    }
  }
  run_together(graph, ranks, Phase::kUpdate);
  std::vector<StepResult> results;
  for (Evaluation& rank : ranks) results.push_back(result_of(graph, rank));
  return results;
}

std::vector<Array> evaluate(const Graph& graph, const Bindings& bindings) {
  Evaluation evaluation(graph);
  evaluation.bind(bindings, false);
  evaluation.bind(bindings, true);
  evaluation.run(Phase::kPrologue);
  evaluation.run(Phase::kMicrobatch);
  evaluation.run(Phase::kUpdate);
  return evaluation.take_values();
}

}  // namespace concord::ref

#include <algorithm>

#include "concord/base/error.h"
#include "concord/kernels/ref/reference.h"
#include "concord/ops/collective.h"

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

bool has_totals(const Graph& graph) {
  return std::ranges::count(graph.nodes, "leaf_total", &Node::op) > 0;
}

// The ranks of a mesh, who run their graphs node by node beside each other.
class Job {
 public:
  Job(const Mesh& mesh, std::span<const Graph> graphs) : mesh_(mesh), graphs_(graphs) {
    CONCORD_CHECK(std::ssize(graphs) == mesh.ranks());
    for (const Graph& graph : graphs) {
      CONCORD_CHECK(graph.nodes.size() == graphs[0].nodes.size(), "ranks run the same nodes");
      ranks_.emplace_back(graph);
    }
  }

  std::vector<StepResult> run(std::span<const Bindings> bindings,
                              std::span<const std::vector<std::vector<Bindings>>> leaves) {
    std::vector<std::size_t> all;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      if (leaves[r].empty()) fail("a step needs at least one leaf");
      if (has_totals(graphs_[r]) && (leaves[r].size() > 1 || leaves[r][0].size() > 1)) {
        fail("totals over leaves need one leaf on each rank, in one microbatch");
      }
      ranks_[r].bind(bindings[r], /*batch_inputs=*/false);
      all.push_back(r);
    }
    run(Phase::kPrologue, all);
    sums_.resize(ranks_.size());
    for (std::size_t leaf = 0; !active(leaves, leaf).empty(); ++leaf) run_leaf(leaves, leaf);
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      ranks_[r].set_sums(tree_sum(sums_[r], 0, sums_[r].size()));
    }
    run(Phase::kUpdate, all);
    std::vector<StepResult> results;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      results.push_back(result_of(graphs_[r], ranks_[r]));
    }
    return results;
  }

 private:
  using Leaves = std::span<const std::vector<std::vector<Bindings>>>;

  // The ranks that have so many leaves.
  static std::vector<std::size_t> active(Leaves leaves, std::size_t leaf) {
    std::vector<std::size_t> found;
    for (std::size_t r = 0; r < leaves.size(); ++r) {
      if (leaf < leaves[r].size()) found.push_back(r);
    }
    return found;
  }

  void run_leaf(Leaves leaves, std::size_t leaf) {
    std::vector<std::size_t> ranks = active(leaves, leaf);
    for (std::size_t m = 0; !ranks.empty(); ++m) {
      std::erase_if(ranks, [&](std::size_t r) { return m >= leaves[r][leaf].size(); });
      if (m == 0 && ranks.empty()) fail("a leaf needs at least one microbatch");
      for (const std::size_t r : ranks) ranks_[r].bind(leaves[r][leaf][m], /*batch_inputs=*/true);
      run(Phase::kMicrobatch, ranks);
      for (const std::size_t r : ranks) {
        if (m == 0) {
          sums_[r].push_back(ranks_[r].summands());
        } else {
          add_to(sums_[r].back(), ranks_[r].summands());
        }
      }
    }
  }

  void run(Phase phase, const std::vector<std::size_t>& ranks) {
    if (ranks.empty()) return;
    for (std::size_t n = 0; n < graphs_[0].nodes.size(); ++n) {
      const Node& node = graphs_[0].nodes[n];
      if (!ranks_[0].is_in(phase, n) || node.op == "leaf_sum") continue;
      if (ops::is_collective(node.op)) {
        meet(n, ranks);
      } else {
        for (const std::size_t r : ranks) ranks_[r].run(graphs_[r].nodes[n]);
      }
    }
  }

  // A collective, among those who differ along its axis alone.
  void meet(std::size_t n, const std::vector<std::size_t>& ranks) {
    const std::string& axis = graphs_[0].nodes[n].attributes.text("axis");
    std::map<int, std::vector<std::size_t>> groups;  // by their first rank
    for (const std::size_t r : ranks) {
      groups[mesh_.first_along(static_cast<int>(r), axis)].push_back(r);
    }
    for (const auto& [first, group] : groups) {
      if (std::ssize(group) != mesh_.extent(axis)) {
        fail("op {} needs one leaf on each rank along {}, in one microbatch",
             graphs_[0].nodes[n].op, axis);
      }
      std::vector<const Array*> inputs;
      for (const std::size_t r : group) {
        inputs.push_back(&ranks_[r].value(graphs_[r].nodes[n].inputs[0]));
      }
      std::vector<Array> outputs = run_collective(graphs_[0].nodes[n], inputs);
      for (std::size_t i = 0; i < group.size(); ++i) {
        const Graph& graph = graphs_[group[i]];
        const ValueId output = graph.nodes[n].outputs[0];
        CONCORD_CHECK(outputs[i].shape == graph.type(output).shape);
        ranks_[group[i]].value(output) = rounded(std::move(outputs[i]), graph.type(output).dtype);
      }
    }
  }

  const Mesh& mesh_;
  std::span<const Graph> graphs_;
  std::vector<Evaluation> ranks_;
  std::vector<std::vector<std::vector<Array>>> sums_;  // by rank and leaf
};

}  // namespace

StepResult evaluate_step(const Graph& graph, const Bindings& bindings,
                         const std::vector<std::vector<Bindings>>& leaves) {
  return evaluate_ranks({}, {&graph, 1}, {&bindings, 1}, {&leaves, 1})[0];
}

std::vector<StepResult> evaluate_ranks(const Mesh& mesh, std::span<const Graph> graphs,
                                       std::span<const Bindings> bindings,
                                       std::span<const std::vector<std::vector<Bindings>>> leaves) {
  return Job(mesh, graphs).run(bindings, leaves);
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

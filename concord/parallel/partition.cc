#include "concord/parallel/partition.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "concord/base/error.h"
#include "concord/ops/collective.h"
#include "concord/ops/step.h"
#include "concord/passes/rewrite.h"

namespace concord::parallel {
namespace {

constexpr std::string_view kData = "data";
const Placement kOfLeaves = Placement::split(Placement::kLeaves);

// How an op wants an input and places its outputs, given how all inputs are placed; nullopt where
// it cannot take one of them as it is.
std::optional<Placement> placed_outputs(const Node& node, const std::vector<Placement>& inputs) {
  if (node.op == "leaf_sum" || node.op == ops::kLeafTotal) {
    return inputs[0] == kOfLeaves ? std::optional(Placement::partial()) : std::nullopt;
  }
  if (ops::is_collective(node.op) && node.attributes.text("axis") == kData) {
    return inputs[0] == Placement::partial() ? std::optional(Placement::replicate()) : std::nullopt;
  }
  if (std::ranges::count(inputs, Placement::partial()) > 0) return std::nullopt;
  return std::ranges::count(inputs, kOfLeaves) > 0 ? kOfLeaves : Placement::replicate();
}

// The placements of values, as far as the nodes that make them were seen.
class Placements {
 public:
  explicit Placements(const Graph& graph) : of_value_(graph.values.size()) {
    for (const Input& input : graph.inputs) {
      if (input.kind == Input::Kind::kBatch) at(input.value) = kOfLeaves;
    }
  }

  const Placement& operator[](ValueId id) const { return of_value_[static_cast<std::size_t>(id)]; }
  void add(const Graph& graph, const Node& node) {
    of_value_.resize(graph.values.size());
    std::vector<Placement> inputs;
    for (const ValueId id : node.inputs) inputs.push_back((*this)[id]);
    const std::optional<Placement> outputs = placed_outputs(node, inputs);
    if (!outputs) {
      std::vector<std::string> texts;
      for (const Placement& input : inputs) texts.push_back(to_string(input));
      fail("op {} of layer {} cannot take inputs placed as {} along {}", node.op,
           node.name.empty() ? "-" : node.name, fmt::join(texts, ", "), kData);
    }
    for (const ValueId id : node.outputs) at(id) = *outputs;
  }
  std::vector<Placement> take() { return std::move(of_value_); }

 private:
  Placement& at(ValueId id) { return of_value_[static_cast<std::size_t>(id)]; }
  std::vector<Placement> of_value_;
};

class Partitioner {
 public:
  Partitioner(const Graph& source, int ranks)
      : source_(source), ranks_(ranks), rewriter_(source), placements_(rewriter_.graph()) {}

  Graph run() {
    for (const Node& node : source_.nodes) {
      for (const ValueId input : node.inputs) complete(input);
      rewriter_.copy(node);
      placements_.add(rewriter_.graph(), rewriter_.graph().nodes.back());
    }
    for (const Output& output : source_.outputs) complete(output.value);
    for (const State& state : source_.states) {
      if (state.next != kNoValue) complete(state.next);
    }
    return rewriter_.finish();
  }

 private:
  // From here on the value is no summand, but the sum.
  void complete(ValueId old_value) {
    const ValueId value = rewriter_[old_value];
    if (placements_[value] != Placement::partial()) return;
    const Graph& graph = rewriter_.graph();
    const TensorType type = graph.type(value);
    const Layout layout = graph.value(value).layout;
    const Node all_reduce{
        .op = std::string(ops::kAllReduce),
        .inputs = {value},
        .outputs = {},
        .attributes = {{"axis", std::string(kData)}, {"ranks", std::int64_t{ranks_}}},
        .name = graph.node(graph.value(value).producer).name};
    rewriter_.map(old_value, rewriter_.add(all_reduce, {{.type = type, .layout = layout}})[0]);
    placements_.add(rewriter_.graph(), rewriter_.graph().nodes.back());
  }

  const Graph& source_;
  int ranks_;
  Rewriter rewriter_;
  Placements placements_;
};

}  // namespace

Graph partition(Graph graph, const Mesh& mesh) {
  if (mesh.extent(kData) == 1) return graph;
  return Partitioner(graph, mesh.extent(kData)).run();
}

std::vector<Placement> placements_along_data(const Graph& graph) {
  Placements placements(graph);
  for (const Node& node : graph.nodes) placements.add(graph, node);
  return placements.take();
}

}  // namespace concord::parallel

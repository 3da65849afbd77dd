#include "concord/graph/graph.h"

#include <algorithm>

namespace concord {

TensorType whole_type(const Graph& graph, const State& state) {
  const TensorType& type = state.flat ? state.flat->type : graph.type(state.value);
  return {type.dtype, whole_shape(type.shape, state.cuts)};
}

Shape whole_shape(const Shape& part, const std::vector<Cut>& cuts) {
  Shape shape = part;
  for (const Cut& cut : cuts) shape = whole_shape(shape, cut.split, cut.ranks);
  return shape;
}

ValueId Graph::find_input(std::string_view name) const {
  for (const Input& input : inputs) {
    if (value(input.value).name == name) return input.value;
  }
  return kNoValue;
}

ValueId Graph::find_state(std::string_view name) const {
  for (const State& state : states) {
    if (value(state.value).name == name) return state.value;
  }
  return kNoValue;
}

ValueId Graph::find_output(std::string_view name) const {
  for (const Output& output : outputs) {
    if (output.name == name) return output.value;
  }
  return kNoValue;
}

std::vector<Phase> phases(const Graph& graph) {
  std::vector<Phase> of_value(graph.values.size(), Phase::kPrologue);
  bool has_batch = false;
  for (const Input& input : graph.inputs) {
    if (input.kind == Input::Kind::kBatch) {
      has_batch = true;
      of_value[static_cast<std::size_t>(input.value)] = Phase::kMicrobatch;
    }
  }
  if (!has_batch) return std::vector<Phase>(graph.nodes.size(), Phase::kUpdate);
  std::vector<Phase> of_node;
  of_node.reserve(graph.nodes.size());
  for (const Node& node : graph.nodes) {
    Phase phase = Phase::kPrologue;
    for (const ValueId input : node.inputs) {
      phase = std::max(phase, of_value[static_cast<std::size_t>(input)]);
    }
    if (node.op == "leaf_sum") phase = Phase::kUpdate;
    for (const ValueId output : node.outputs) of_value[static_cast<std::size_t>(output)] = phase;
    of_node.push_back(phase);
  }
  return of_node;
}

}  // namespace concord

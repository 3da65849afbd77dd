#include "concord/graph/op.h"

#include <algorithm>
#include <map>

#include "concord/base/error.h"

namespace concord {
namespace {

std::map<std::string, Op, std::less<>>& registry() {
  static std::map<std::string, Op, std::less<>> ops;
  return ops;
}

}  // namespace

RegisterOp::RegisterOp(Op op) {
  const std::string name = op.name;
  const bool inserted = registry().emplace(name, std::move(op)).second;
  CONCORD_CHECK(inserted, "op \"{}\" is defined twice", name);
}

const Op& find_op(std::string_view name) {
  const auto found = registry().find(name);
  if (found == registry().end()) fail("there is no op \"{}\"", name);
  return found->second;
}

std::vector<std::vector<std::int64_t>> PlacementContext::sections(std::size_t operand,
                                                                  int dim) const {
  return sections(std::vector<std::pair<std::size_t, int>>{{operand, dim}});
}

std::vector<std::vector<std::int64_t>> PlacementContext::sections(
    const std::vector<std::pair<std::size_t, int>>& operands) const {
  std::vector<std::vector<std::int64_t>> found = {{1}};
  for (const auto& [operand, dim] : operands) {
    if (operand >= known_splits.size()) continue;
    for (const Placement& split : known_splits[operand]) {
      if (split.is_split(dim) && std::ranges::count(found, split.sections) == 0) {
        found.push_back(split.sections);
      }
    }
  }
  std::erase_if(found, [&](const std::vector<std::int64_t>& sections) {
    return !std::ranges::all_of(operands, [&](const std::pair<std::size_t, int>& pair) {
      const auto [operand, dim] = pair;
      const Shape& shape =
          operand < inputs.size() ? inputs[operand].shape : outputs[operand - inputs.size()].shape;
      return divides(shape, Placement::split(dim, sections), ranks);
    });
  });
  return found;
}

std::vector<const Op*> all_ops() {
  std::vector<const Op*> ops;
  for (const auto& [name, op] : registry()) ops.push_back(&op);
  return ops;
}

Cost cost_of(const Graph& graph, const Node& node) {
  std::vector<TensorType> inputs, outputs;
  for (const ValueId id : node.inputs) inputs.push_back(graph.type(id));
  for (const ValueId id : node.outputs) outputs.push_back(graph.type(id));
  const Op& op = find_op(node.op);
  if (op.cost != nullptr) return op.cost(node, inputs, outputs);
  double elements = 0;
  for (const TensorType& type : outputs) elements += static_cast<double>(type.shape.elements());
  return {elements};
}

}  // namespace concord

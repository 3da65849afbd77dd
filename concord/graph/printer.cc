#include "concord/graph/printer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace concord {
namespace {

std::string type_of(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  std::string text = to_string(value.type);
  if (!value.layout.is_row_major()) text += "@" + to_string(value.layout);
  return text;
}

std::string refs(const std::vector<ValueId>& ids) {
  std::string text;
  for (const ValueId id : ids) text += fmt::format("{}%{}", text.empty() ? "" : ", ", id);
  return text;
}

struct AttributeText {
  std::string operator()(std::int64_t value) const { return fmt::format("{}", value); }
  std::string operator()(double value) const { return fmt::format("{}", value); }
  std::string operator()(const std::string& value) const { return fmt::format("\"{}\"", value); }
  std::string operator()(const std::vector<std::int64_t>& value) const {
    return fmt::format("[{}]", fmt::join(value, ", "));
  }
};

}  // namespace

std::string to_string(const Attributes& attributes) {
  std::string text = "{";
  for (const auto& [name, value] : attributes) {
    text += fmt::format("{}{}={}", text.size() == 1 ? "" : ", ", name,
                        std::visit(AttributeText(), value));
  }
  return text + "}";
}

std::string to_string(const Graph& graph, const Node& node) {
  std::string types;
  for (const ValueId id : node.outputs) {
    types += fmt::format("{}{}", types.empty() ? "" : ", ", type_of(graph, id));
  }
  return fmt::format("{} = {}({}){}{} : {}{}{}", refs(node.outputs), node.op, refs(node.inputs),
                     node.attributes.empty() ? "" : " ",
                     node.attributes.empty() ? "" : to_string(node.attributes), types,
                     node.name.empty() ? "" : "  # ", node.name);
}

std::string to_string(const Graph& graph) {
  std::string text;
  for (const Input& input : graph.inputs) {
    text += fmt::format("input %{} \"{}\" : {}{}\n", input.value, graph.value(input.value).name,
                        type_of(graph, input.value),
                        input.kind == Input::Kind::kStep ? " per-step" : "");
  }
  for (const State& state : graph.states) {
    text += fmt::format("state %{} \"{}\" : {}", state.value, graph.value(state.value).name,
                        type_of(graph, state.value));
    text += state.next == kNoValue ? "\n" : fmt::format(" -> %{}\n", state.next);
  }
  for (const Node& node : graph.nodes) text += to_string(graph, node) + "\n";
  for (const Output& output : graph.outputs) {
    text += fmt::format("output {} = %{}\n", output.name, output.value);
  }
  return text;
}

}  // namespace concord

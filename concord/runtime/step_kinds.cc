#include "concord/runtime/step_kinds.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "concord/graph/printer.h"
#include "concord/ops/collective.h"

namespace concord {
namespace {

std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

class Copy final : public Kernel {
 public:
  explicit Copy(std::size_t bytes) : bytes_(bytes) {}
  void run(std::span<std::byte* const> operands) override {
    std::memcpy(operands[1], operands[0], bytes_);
  }

 private:
  std::size_t bytes_;
};

}  // namespace

std::vector<Phase> phases_of_single_microbatch(const Graph& graph) {
  std::vector<Phase> phase = phases(graph);
  std::vector<bool> of_states(graph.values.size(), false),
      read_elsewhere(graph.values.size(), false);
  for (const State& state : graph.states) of_states[index(state.value)] = true;
  for (const Node& node : graph.nodes) {
    const bool all = !node.inputs.empty() && std::ranges::all_of(node.inputs, [&](ValueId id) {
      return of_states[index(id)];
    });
    for (const ValueId output : node.outputs) of_states[index(output)] = all;
  }
  for (const State& state : graph.states) {
    if (state.next != kNoValue) read_elsewhere[index(state.next)] = true;
  }
  for (const Output& output : graph.outputs) read_elsewhere[index(output.value)] = true;
  for (std::size_t n = graph.nodes.size(); n-- > 0;) {
    const Node& node = graph.nodes[n];
    if (phase[n] == Phase::kPrologue && std::ranges::all_of(node.outputs, [&](ValueId id) {
          return of_states[index(id)] && !read_elsewhere[index(id)];
        })) {
      phase[n] = Phase::kMicrobatch;
    }
    if (phase[n] == Phase::kMicrobatch) continue;
    for (const ValueId input : node.inputs) read_elsewhere[index(input)] = true;
  }
  return phase;
}

Region region_of(const StateStore::Entry& state) {
  if (state.has_versions) return Region::kVersions;
  if (state.in_common) return Region::kCommonStates;
  return state.is_offloaded ? Region::kOffloadedStates : Region::kStates;
}

bool has_kernel(const Node& node) {
  return node.op != "leaf_sum" && !ops::is_collective(node.op) && !ops::is_message(node.op);
}

MessageStep make_message_step(const Node& node) {
  MessageStep message{.is_send = node.op == ops::kSend,
                      .axis = node.attributes.text("axis"),
                      .stream = node.attributes.text("stream"),
                      .peer = static_cast<int>(node.attributes.integer("peer")),
                      .number = node.attributes.integer("number"),
                      .label = comm::Label(node.name)};
  if (node.attributes.has("sender_half")) {
    message.sender_half = static_cast<int>(node.attributes.integer("sender_half"));
  }
  return message;
}

std::unique_ptr<Kernel> copy_of(std::size_t bytes) { return std::make_unique<Copy>(bytes); }

std::string kind_of(const Graph& graph, const Node& node) {
  std::string kind = node.op + to_string(node.attributes);
  for (const auto* values : {&node.inputs, &node.outputs}) {
    for (const ValueId id : *values) {
      const Value& value = graph.value(id);
      kind += fmt::format(" {}@{}", to_string(value.type), to_string(value.layout));
    }
    kind += " ->";
  }
  return kind;
}

}  // namespace concord
